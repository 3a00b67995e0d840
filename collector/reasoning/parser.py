"""Reading what a reasoning claims the path will do: a direction and a change of speed.

The reader is deterministic, knows negation ("do not turn left"), leaves out what is said of other road users
("the car ahead turns left"), and answers ``none`` where nothing is claimed: no claim is never agreement. It reads
English and Japanese, telling them apart by their letters; each language has its own module
(:mod:`collector.reasoning.english`, :mod:`collector.reasoning.japanese`), and what counts first is decided here for
both. It must read every sentence of :mod:`collector.reasoning.writing` exactly, and does its best on a driving model's
own words.
"""

from __future__ import annotations

import re

from collector.reasoning import english, japanese
from collector.reasoning.claims import Claim, Language, LongitudinalClaim

_JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
_LATIN = re.compile("[A-Za-z]")


def parse_claim(text: str) -> Claim:
    """Read the claims of an English or Japanese reasoning; anything unreadable claims nothing.

    What the driver does ("steer right") outranks what the road does ("the lane bends right"); among equals the first
    one counts, so an S-bend claims its first direction. A stop outranks the slowing down that leads to it.
    """
    room = japanese if language_of(text) == "ja" else english
    ours, roads, speeds = room.read(text)
    speed: LongitudinalClaim = speeds[0] if speeds else "none"
    # "Accelerate, then stop at the line" speaks of now first; "slow down and stop" of one manoeuvre.
    if "stop" in speeds and speed != "accelerate":
        speed = "stop"
    return Claim((*ours, *roads, "none")[0], speed)


def language_of(text: str) -> Language:
    """The language most of a text is written in; a Japanese letter says about as much as two Latin ones."""
    return "ja" if 2 * len(_JAPANESE.findall(text)) > len(_LATIN.findall(text)) else "en"
