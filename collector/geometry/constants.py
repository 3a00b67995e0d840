"""The steps of a sample, an observation and a plan: 1.6 s of history, 6.4 s of future, four frames, all at 10 Hz."""

from __future__ import annotations

HISTORY_STEPS = 16
FUTURE_STEPS = 64
FRAME_STEPS = 4
STEP_S = 0.1
NS_PER_S = 1_000_000_000
STEP_NS = NS_PER_S // 10
