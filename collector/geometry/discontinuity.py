"""The one rule for where a stream of poses is no single motion: a clock that restarted, a silence, a teleport.

What cuts recordings, empties a driver's memory and tells a reset from driving asks here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.geometry.constants import NS_PER_S

CLOCK_BACK = "clock went back"
GAP = "pose gap too large"
TELEPORT = "teleport"
LATE = "late message"

TELEPORT_SLACK_M = 1.0
# Of the kart; assumed where a source of poses tells no speed.
_TOP_SPEED_MPS = 10.0
# A clock that steps back by less is a message out of order; by more, a restart of the simulation.
_RESET_NS = NS_PER_S
# Nor is a step forward by more a time that passed: another clock.
_LEAP_NS = 3600 * NS_PER_S


class StampedTime:
    """The time that passed by stamps in order of arrival; what a clock skips when it restarts or leaps is none."""

    def __init__(self) -> None:
        self.passed_ns = 0
        self._last_ns: int | None = None

    @property
    def passed_s(self) -> float:
        """In seconds."""
        return self.passed_ns / NS_PER_S

    def add(self, stamp_ns: int) -> None:
        """Take the next stamp; one that is merely late counts for nothing."""
        step_ns = 0 if self._last_ns is None else stamp_ns - self._last_ns
        if 0 < step_ns <= _LEAP_NS:
            self.passed_ns += step_ns
        elif self._last_ns is not None and -_RESET_NS < step_ns <= 0:
            return
        self._last_ns = stamp_ns


def discontinuity(
    step_ns: int,  # from the stamp of the first to that of the second
    moved_m: float,  # the distance between them
    speeds_mps: Sequence[
        float
    ] = (),  # forward speed at both as their source tells it; NaN or nothing where it does not
    *,
    max_gap_s: float = 0.2,  # a longer silence is a gap
    slack_m: float = TELEPORT_SLACK_M,  # they may lie this much farther apart than twice the speed explains
) -> str:
    """Why two poses in a row are not of one motion, empty when they are.

    :data:`CLOCK_BACK`, :data:`GAP` or :data:`TELEPORT`; :data:`LATE` for a repeated or late message, which is to be
    passed over.
    """
    if step_ns <= 0:
        return CLOCK_BACK if step_ns <= -_RESET_NS else LATE
    if step_ns > max_gap_s * NS_PER_S:
        return GAP
    return TELEPORT if moved_m > _longest_step_m(step_ns / NS_PER_S, speeds_mps, slack_m) else ""


def _longest_step_m(dt_s: float, speeds_mps: Sequence[float] = (), slack_m: float = TELEPORT_SLACK_M) -> float:
    """How far apart two poses of one motion may lie."""
    known = [abs(speed) for speed in speeds_mps if np.isfinite(speed)]
    return slack_m + 2.0 * max(known, default=_TOP_SPEED_MPS) * dt_s


def teleports(t_s: ArrayLike, xy: ArrayLike) -> NDArray[np.bool_]:
    """Which poses of a drive, (N,) rising times and (N, 2) metres, the one before could not have driven to: (N,)."""
    moved_m = np.hypot(*np.diff(np.asarray(xy, np.float64), axis=0).T)
    longest_m = _longest_step_m(1.0, slack_m=0.0) * np.diff(np.asarray(t_s, np.float64)) + TELEPORT_SLACK_M
    return np.concatenate([np.zeros(min(1, len(np.asarray(t_s))), bool), moved_m > longest_m])
