"""Which states of a drive are worth a sample: many where the kart has strayed, some in and behind bends, few elsewhere.

One rule for drives in the simulator and for recorded ones. Every state is counted, by what it is and whether it was
taken.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from closed_loop.course.course import Course
from collector.common.arguments import Arguments, argument
from collector.geometry.curvature import DEFAULT_THRESHOLDS

Kind = Literal["strayed", "in a bend", "out of a bend", "straight"]
THINNED = "thinned"
# A bend counts from so far before it to so far behind it.
_BEFORE_M, _BEHIND_M = 4.0, 6.0


@dataclass(frozen=True)
class ChoiceConfig(Arguments):
    """How many states become samples."""

    stray_m: float = argument(0.3, "a kart farther beside the line than this has strayed", 0.0, 10.0)
    stray_rad: float = argument(0.15, "so has one whose heading differs from the line's by more", 0.0, 1.5)
    stray_every_s: float = argument(
        0.2, "vehicle seconds from a sample to the next where the kart has strayed", 0.1, 60.0
    )
    bend_every_s: float = argument(0.5, "the same in a bend and behind it", 0.1, 60.0)
    straight_every_s: float = argument(2.0, "the same elsewhere", 0.1, 60.0)

    def every_s(self, kind: Kind) -> float:
        """The least time from the last sample of a drive to one of a kind."""
        if kind == "strayed":
            return self.stray_every_s
        return self.straight_every_s if kind == "straight" else self.bend_every_s


class Choice:
    """Chooses among the states of drives; a drive's name keeps its time apart from the others'."""

    def __init__(self, config: ChoiceConfig) -> None:
        self.config = config
        self.reached: Counter[Kind] = Counter()  # states that were asked about
        self.taken: Counter[Kind] = Counter()  # those that are to become samples
        self._last_ns: dict[str, int] = {}

    def kind(self, course: Course, station_m: float, lateral_m: float, heading_rad: float) -> Kind:
        """What a state is: its place along the course, beside its line and askew to it."""
        if abs(lateral_m) > self.config.stray_m or abs(heading_rad) > self.config.stray_rad:
            return "strayed"
        along = station_m + np.arange(-_BEHIND_M, _BEFORE_M + 0.5, 0.5)
        is_bend = np.abs(course.at(along, course.curvature_1pm)) >= DEFAULT_THRESHOLDS.curve_curvature_1pm
        if is_bend[along >= station_m].any():
            return "in a bend"
        return "out of a bend" if is_bend.any() else "straight"

    def takes(self, drive: str, stamp_ns: int, kind: Kind) -> bool:
        """Whether the state of a drive at a stamp is to become a sample; a clock that goes back begins anew."""
        self.reached[kind] += 1
        since_s = (stamp_ns - self._last_ns[drive]) * 1e-9 if drive in self._last_ns else math.inf
        if 0.0 <= since_s < self.config.every_s(kind) - 1e-6:
            return False
        self._last_ns[drive] = stamp_ns
        self.taken[kind] += 1
        return True

    def facts(self) -> dict[str, dict[str, int]]:
        """The counts for a manifest."""
        counts = {"reached": self.reached, "taken": self.taken}
        return {name: {kind: count[kind] for kind in get_args(Kind)} for name, count in counts.items()}

    def table(self) -> str:
        """The counts for a terminal."""
        said = (f"{kind} {self.taken[kind]} of {self.reached[kind]}" for kind in get_args(Kind))
        return "states corrected: " + ", ".join(said)
