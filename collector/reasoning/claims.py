"""What a reasoning can claim of its path: a direction and a change of speed; and how patterns of words are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LateralClaim = Literal["left", "right", "straight", "none"]
LongitudinalClaim = Literal["accelerate", "decelerate", "keep", "stop", "none"]
Language = Literal["en", "ja"]


@dataclass(frozen=True)
class Claim:
    """What a text says about both axes; an S-bend claims the direction it begins with."""

    lateral: LateralClaim = "none"
    longitudinal: LongitudinalClaim = "none"


def any_of(words: str) -> str:
    """A pattern's group that matches one of the words (each may itself be a small pattern without spaces)."""
    return "(?:" + "|".join(words.split()) + ")"
