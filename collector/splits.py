"""Which stretches of the recordings are for validation: whole laps by seed, with a guard band around them.

Neighbouring frames look alike, so frames are never shuffled apart: a stretch is one lap, or a whole bag without lap
counts, or, where those are larger than the share asked for, a piece of one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from collector.errors import MonoError


@dataclass(frozen=True)
class Stretch:
    """One lap of one bag between two header stamps; ``epoch`` counts restarts of the clock."""

    bag: str
    epoch: int
    lap: int
    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.start_ns


def choose_validation(stretches: Sequence[Stretch], share: float, seed: int) -> tuple[Stretch, ...]:
    """Draw the validation stretches.

    Laps are drawn until ``share`` of the driven time is reached; a lap far larger than what is still wanted is not
    taken whole. If all are, one piece of the wanted length is cut from one of them.

    Raises:
        MonoError: a share outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise MonoError(
            f"a validation share of {share}", "0 or more and less than 1", "use for example --val 0.1"
        )
    drawn = [stretch for stretch in stretches if stretch.length_ns > 0]
    wanted_ns = share * sum(stretch.length_ns for stretch in drawn)
    if wanted_ns <= 0.0:
        return ()
    draw = random.Random(seed)
    draw.shuffle(drawn)
    chosen: list[Stretch] = []
    for stretch in drawn:
        missing_ns = wanted_ns - sum(taken.length_ns for taken in chosen)
        if 0 < stretch.length_ns <= 1.5 * missing_ns:
            chosen.append(stretch)
    if not chosen:
        whole = drawn[0]
        start_ns = whole.start_ns + round(draw.random() * (whole.length_ns - wanted_ns))
        chosen.append(Stretch(whole.bag, whole.epoch, whole.lap, start_ns, start_ns + round(wanted_ns)))
    return tuple(sorted(chosen, key=lambda stretch: (stretch.bag, stretch.epoch, stretch.start_ns)))


def split_of(bag: str, epoch: int, stamp_ns: int, validation: Sequence[Stretch], guard_ns: int) -> str | None:
    """``"val"`` inside a validation stretch, None (use neither) within the guard band around one, else ``"train"``."""
    here = [stretch for stretch in validation if stretch.bag == bag and stretch.epoch == epoch]
    if any(stretch.start_ns <= stamp_ns <= stretch.end_ns for stretch in here):
        return "val"
    if any(stretch.start_ns - guard_ns <= stamp_ns <= stretch.end_ns + guard_ns for stretch in here):
        return None
    return "train"
