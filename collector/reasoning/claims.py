"""What a reasoning can claim of its path: direction, change of speed, place on the road and pace; patterns of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LateralClaim = Literal["left", "right", "straight", "none"]
LongitudinalClaim = Literal["accelerate", "decelerate", "keep", "stop", "none"]
# Where on the road, whichever way that bends; "out" is pulling out to a side and coming back.
PositionClaim = Literal["left", "middle", "right", "out left", "out right", "none"]
# Against what is usual at a place, whether or not the speed changes.
PaceClaim = Literal["slow", "brisk", "none"]
Language = Literal["en", "ja"]


@dataclass(frozen=True)
class Claim:
    """What a text says about each axis; an S-bend claims the direction it begins with."""

    lateral: LateralClaim = "none"
    longitudinal: LongitudinalClaim = "none"
    position: PositionClaim = "none"
    pace: PaceClaim = "none"


@dataclass(frozen=True)
class Said:
    """What one text, or a part of it, says, each in order of speaking.

    The directions of our own acts and those of the road; changes of speed; places on the road; paces.
    """

    ours: tuple[LateralClaim, ...] = ()
    roads: tuple[LateralClaim, ...] = ()
    speeds: tuple[LongitudinalClaim, ...] = ()
    positions: tuple[PositionClaim, ...] = ()
    paces: tuple[PaceClaim, ...] = ()


def any_of(words: str) -> str:
    """A pattern's group that matches one of the words (each may itself be a small pattern without spaces)."""
    return "(?:" + "|".join(words.split()) + ")"
