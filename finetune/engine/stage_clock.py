"""Where a plan's time goes."""

from __future__ import annotations

import time

import torch


class StageClock:
    """Milliseconds per stage; a GPU is waited for, so that its work is counted where it belongs.

    Attributes:
        began_ns: steady clock at the start.
        laps_ms: per stage that is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._last = time.perf_counter()
        self.began_ns = time.monotonic_ns()
        self.laps_ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The stage of this name is done."""
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
        now = time.perf_counter()
        self.laps_ms[stage] = 1000.0 * (now - self._last)
        self._last = now
