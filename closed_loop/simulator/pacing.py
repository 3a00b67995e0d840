"""Keeping simulated time beside wall time, and deciding which topic is due when.

Pure: clock and sleep are given, stamps are integers. A simulation that cannot keep up becomes slower; it never skips.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Pacer:
    """Holds a stepped simulation back to a multiple of real time."""

    time_scale: float = 1.0  # simulated seconds per wall second asked for
    max_lag_s: float = 0.2  # lateness made up for by hurrying; more is forgotten: after a stall time must not race
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    forgotten_s: float = 0.0
    _began_s: float | None = field(default=None, init=False)
    _first_s: float = field(default=0.0, init=False)

    def wait(self, simulated_s: float) -> None:
        """Return when the wall clock has reached this simulated time."""
        now_s = self.clock()
        if self._began_s is None:
            self._began_s, self._first_s = now_s, simulated_s
            return
        due_s = self._began_s + self.forgotten_s + (simulated_s - self._first_s) / self.time_scale
        if now_s < due_s:
            self.sleep(due_s - now_s)
        elif now_s - due_s > self.max_lag_s:
            self.forgotten_s += now_s - due_s - self.max_lag_s

    def achieved(self, simulated_s: float) -> float:
        """Simulated seconds per wall second since the first :meth:`wait`."""
        if self._began_s is None:
            return self.time_scale
        return (simulated_s - self._first_s) / max(self.clock() - self._began_s, 1e-9)


def is_due(step: int, rate_hz: float, step_rate_hz: float) -> bool:
    """Whether something of ``rate_hz`` happens at this step of a simulation of ``step_rate_hz``.

    Exactly ``rate_hz`` times per simulated second, also when the rates do not divide (30 Hz out of 100 Hz), and
    always at step 0.
    """
    if step == 0:
        return True
    return int(step * rate_hz / step_rate_hz + 1e-9) > int((step - 1) * rate_hz / step_rate_hz + 1e-9)
