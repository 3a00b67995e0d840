"""What a thought claims the path will do, read from its text: a direction and a change of speed.

The reader is deterministic, knows negation ("do not turn left"), leaves out what is said of other road users
("the car ahead turns left"), and answers ``none`` where nothing is claimed: no claim is never agreement. It reads
English and Japanese, telling them apart by their letters; each language has its own room
(:mod:`collector.claims_english`, :mod:`collector.claims_japanese`), and what counts first is decided here for both. It
must read every sentence of :mod:`collector.reasoning` exactly, and does its best on a driving model's own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from collector import claims_english, claims_japanese

LateralClaim = Literal["left", "right", "straight", "none"]
LongitudinalClaim = Literal["accelerate", "decelerate", "keep", "stop", "none"]
Language = Literal["en", "ja"]

_JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
_LATIN = re.compile("[A-Za-z]")


@dataclass(frozen=True)
class Claim:
    """What a text says about both axes; an S-bend claims the direction it begins with."""

    lateral: LateralClaim = "none"
    longitudinal: LongitudinalClaim = "none"


def parse_claim(text: str) -> Claim:
    """Read the claims of an English or Japanese thought.

    What the driver does ("steer right") outranks what the road does ("the lane bends right"); among equals
    the first one counts, so an S-bend claims its first direction. A stop outranks the slowing down that leads
    to it.

    Args:
        text: any text; anything unreadable claims nothing.
    """
    room = claims_japanese if language_of(text) == "ja" else claims_english
    ours, roads, speeds = room.read(text)
    return Claim((*ours, *roads, "none")[0], _first_speed(speeds))


def language_of(text: str) -> Language:
    """The language most of a text is written in; a Japanese letter says about as much as two Latin ones."""
    return "ja" if 2 * len(_JAPANESE.findall(text)) > len(_LATIN.findall(text)) else "en"


def _first_speed(speeds: list[LongitudinalClaim]) -> LongitudinalClaim:
    # "Accelerate, then stop at the line" speaks of now first; "slow down and stop" of one manoeuvre.
    if "stop" in speeds and speeds[0] != "accelerate":
        return "stop"
    return speeds[0] if speeds else "none"
