"""The clock of a sample: what model, datasets and drivers agree on."""

from __future__ import annotations

NS = 1_000_000_000  # nanoseconds per second
STEP_S = 0.1  # between two poses, and between two frames, of a sample
STEP_NS = round(STEP_S * NS)
HISTORY_STEPS = 16  # poses at t0 - 1.5 s ... t0
FUTURE_STEPS = 64  # poses at t0 + 0.1 s ... t0 + 6.4 s
FRAME_STEPS = 4  # newest frames of a camera, the last one at t0
