"""Reasoning texts of drives in a manner: what was asked and why, then what the lane asks of whoever drives there.

"Keep to the left edge and take the bend slowly, as asked. The lane bends right now, so slow down and steer right to
keep the lane." A manner is said only where the path has it, and nothing is said of a road that is not known. What the
road does not allow is taken back in the same breath: "Keep to the left edge, but the road ends there, so stay in the
middle."
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from collector.geometry.curvature import CurveThresholds
from collector.reasoning.claims import Claim, Language, PositionClaim
from collector.reasoning.consistency import Motion
from collector.reasoning.manners import Manner, Pace
from collector.reasoning.places import DEFAULT_MANNER_THRESHOLDS, Place, pace_claim
from collector.reasoning.writing import write_reasoning

Way = Literal["turn left", "turn right", "straight on"]
# What may be asked that a road does not allow: a side where there is no room, or a way that it does not go.
Refused = Literal["left", "right", "turn left", "turn right", "straight on"]


@dataclass(frozen=True)
class _Words:
    """How one language says it; every list holds equivalent phrasings, ``{side}`` is left or right."""

    positions: Mapping[str, tuple[str, ...]]
    paces: Mapping[tuple[str, bool], str]  # with whether there is a bend to take
    stops: Mapping[str, str]
    joint: str
    asked: tuple[str, ...]  # {acts}: all that is said of them, up to the model's own words
    racing: str
    cause: str
    no_room: str
    ways: Mapping[str, str]
    other: str  # {act}: a way that the road does not go, before the road is named
    other_way: tuple[str, str]  # {act}, {side}: the road bends, and the road is straight
    sides: Mapping[str, str]
    gap: str  # between two sentences


_WORDS: dict[Language, _Words] = {
    "en": _Words(
        positions={
            "side": ("keep to the {side} edge", "stay on the {side} side of the lane", "hug the {side} edge"),
            "middle": ("keep to the middle of the lane", "stay in the middle"),
            "out": ("pull out to the {side} and come back", "swing out to the {side} and then come back"),
        },
        paces={
            ("slow", True): "take the bend slowly",
            ("slow", False): "drive slowly",
            ("brisk", True): "take the bend briskly",
            ("brisk", False): "drive briskly",
        },
        stops={"stop": "stop before the mark", "decelerate": "slow down for the mark"},
        joint=" and ",
        asked=("{acts}, as asked.", "{acts}, since we were asked to."),
        racing="{acts}, since the racing line runs there.",
        cause="{acts}, since {cause}.",
        no_room="{act}, but the road ends there, so stay in the middle.",
        other="{act}",
        ways={"turn left": "turn left", "turn right": "turn right", "straight on": "go straight on"},
        other_way=("{act}, but the lane bends {side}, so follow it.", "{act}, but the lane is straight, so follow it."),
        sides={"left": "left", "right": "right"},
        gap=" ",
    ),
    "ja": _Words(
        positions={
            "side": ("{side}端を走る", "{side}側に寄って走る", "{side}寄りを走る"),
            "middle": ("中央を走る", "真ん中を走る"),
            "out": ("{side}側へ出てから戻る", "{side}側に膨らんでから戻る"),
        },
        paces={
            ("slow", True): "ゆっくり曲がる",
            ("slow", False): "ゆっくり走る",
            ("brisk", True): "きびきび曲がる",
            ("brisk", False): "きびきび走る",
        },
        stops={"stop": "目印の手前で止まる", "decelerate": "目印に向けて減速する"},
        joint="。",
        asked=("指示どおり{acts}。", "指示があったので、{acts}。"),
        racing="レーシングラインがそこを通るので、{acts}。",
        cause="{cause}ので、{acts}。",
        no_room="{act}ところだが、道がそこで終わるので、中央を走る。",
        other="{act}ところだが、",
        ways={"turn left": "左に曲がる", "turn right": "右に曲がる", "straight on": "まっすぐ進む"},
        other_way=(
            "{act}ところだが、車線が{side}に曲がるので、それに従う。",
            "{act}ところだが、車線がまっすぐなので、それに従う。",
        ),
        sides={"left": "左", "right": "右"},
        gap="",
    ),
}
_ENDS = (".", "。")  # of a sentence
_OF_THE_BEND = 0.5  # share of the paces in bends that are said of the bend


def write_manner(
    motion: Motion, manner: Manner, seed: int, thresholds: CurveThresholds, language: Language
) -> str | None:
    """The reasoning of a motion in a manner; None where the path does not have it, or where that cannot be known.

    In the usual manner it is :func:`collector.reasoning.writing.write_reasoning`'s, word for word. The same motion,
    manner and seed give the same text.
    """
    base = write_reasoning(motion, seed, thresholds, language)
    if manner.is_usual:
        return base
    words, draw, place = _WORDS[language], random.Random(seed), motion.place
    if place is None or not is_driven(manner, motion):
        return None
    acts = []
    if manner.act in ("out left", "out right"):
        acts.append(_position(words, manner.act, draw))
    elif manner.line != "usual":
        acts.append(_position(words, place.position(), draw))
    if manner.pace != "usual":
        # In a bend either may be said, for nobody who asks knows how the road runs.
        acts.append(words.paces[manner.pace, motion.lateral != "straight" and draw.random() < _OF_THE_BEND])
    if manner.act == "stop":
        acts.append(words.stops[motion.longitudinal])
    form = draw.choice(words.asked)
    if manner.cause:
        form = words.cause
    elif manner.line == "racing" and len(acts) == 1:
        form = words.racing
    said = form.format(acts=words.joint.join(acts), cause=manner.cause)
    return f"{said[:1].upper()}{said[1:]}{words.gap}{base}"


def is_driven(manner: Manner, motion: Motion) -> bool:
    """Whether a motion whose place is known has the manner; on the way to it, it has not."""
    place = motion.place
    if place is None:
        return False
    claim = Claim(position=asked_position(manner, place), pace=pace_claim(manner.pace))
    return (
        (claim.position == "none" or place.agrees(claim.position))
        and (manner.pace == "usual" or place.pace() == manner.pace)
        and (manner.act != "stop" or motion.longitudinal in ("stop", "decelerate"))
    )


def asked_position(manner: Manner, place: Place) -> PositionClaim:
    """The place a manner asks for; of the racing line, wherever it runs."""
    if manner.act in ("out left", "out right"):
        return manner.act
    if manner.line == "racing":
        return place.position()
    return "none" if manner.line == "usual" else manner.line


def refusals(motion: Motion) -> tuple[Refused, ...]:
    """What the road does not allow where a motion in the usual manner runs, of all that could be asked there."""
    place, refused = motion.place, list[Refused]()
    if place is not None and place.position() == "middle":
        least_m = DEFAULT_MANNER_THRESHOLDS.side_m
        refused += ["left"] if place.room_left_m is not None and place.room_left_m < least_m else []
        refused += ["right"] if place.room_right_m is not None and place.room_right_m < least_m else []
    if motion.curve.label == "left":
        return (*refused, "turn right", "straight on")
    if motion.curve.label == "right":
        return (*refused, "turn left", "straight on")
    return (*refused, "turn left", "turn right") if motion.curve.label == "straight" else tuple(refused)


def write_refusal(motion: Motion, refused: Refused, seed: int, thresholds: CurveThresholds, language: Language) -> str:
    """What is asked and the road does not allow, taken back at once; then the reasoning of the motion as ever."""
    words, draw = _WORDS[language], random.Random(seed)
    if refused in ("left", "right"):
        said = words.no_room.format(act=_position(words, refused, draw))
    else:
        bends = motion.lateral != "straight"
        side = words.sides.get(motion.lateral, "")
        said = words.other_way[0 if bends else 1].format(act=words.ways[refused], side=side)
    return f"{said[:1].upper()}{said[1:]}{words.gap}{write_reasoning(motion, seed, thresholds, language)}"


def write_demand(
    line: Literal["left", "middle", "right"] | None, pace: Pace, way: Way | None, language: Language
) -> str:
    """How a text begins that answers a demand: a place, a pace or both, or a way to go.

    A place or a pace is a sentence of its own, as in the texts that are learned from: what a model never learned to
    write (see :func:`asked_part`) it could not go on with from the middle. What becomes of a way is left to what
    follows.
    """
    words = _WORDS[language]
    if way is not None:
        said = words.other.format(act=words.ways[way])
    else:
        acts = [] if line is None else [_position(words, line)]
        acts += [] if pace == "usual" else [words.paces[pace, False]]
        said = words.asked[0].format(acts=words.joint.join(acts))
    return f"{said[:1].upper()}{said[1:]}"


def gap_after(language: Language) -> str:
    """What stands between two sentences."""
    return _WORDS[language].gap


def asked_part(text: str) -> str:
    """What a text of this module begins with that no picture shows, since somebody asked for it; "" where nobody did.

    "Keep to the left edge, as asked. " before "The lane ...", and "Turn left" before ", but the lane bends right". What
    is answered to a wish, and what has a cause that can be seen, is not among it.
    """
    for form in _asked_forms():
        if found := form.match(text):
            return found["said"]
    return ""


def unasked(text: str) -> str | None:
    """A text without the pace or the stop that somebody asked for; None where nobody did, or where nothing is left.

    "The lane bends right, so slow down and steer right." of "Drive slowly, as asked. The lane bends right, ...": what
    the path does is said in plain words. A wish for another place than the middle is kept, since no other word says it.
    """
    asked = asked_part(text)
    if not asked.rstrip().endswith(_ENDS):
        return None
    kept = ""
    if _places_asked().search(asked):
        kept = _paces_asked().sub("", asked)
    return (kept + text[len(asked) :] or None) if kept != asked else None


@cache
def _places_asked() -> re.Pattern[str]:
    """A wish for another place than the middle, in any language."""
    return re.compile(
        "|".join(
            re.escape(form.format(side=side))
            for words in _WORDS.values()
            for position, forms in words.positions.items()
            for form in forms
            for side in words.sides.values()
            if position != "middle"
        ),
        re.IGNORECASE,
    )


@cache
def _paces_asked() -> re.Pattern[str]:
    """A pace or a stop behind another wish, in any language."""
    acts = (words.joint + act for words in _WORDS.values() for act in (*words.paces.values(), *words.stops.values()))
    return re.compile("|".join(map(re.escape, acts)), re.IGNORECASE)


@cache
def _asked_forms() -> tuple[re.Pattern[str], ...]:
    """Every form of a wish; its group ``said`` ends where the model's own words begin."""
    forms = []
    for words in _WORDS.values():
        said = [*sum(words.positions.values(), ()), *words.paces.values(), *words.stops.values(), *words.ways.values()]
        act = "|".join(re.escape(each.format(side=side)) for each in said for side in words.sides.values())
        acts = f"(?:{act})(?:{re.escape(words.joint)}(?:{act}))*"
        for form in (*words.asked, words.racing):
            before, after = form.split("{acts}")
            forms.append(f"(?P<said>{re.escape(before)}{acts}{re.escape(after)}{words.gap}?)")
        for form in (words.no_room, *words.other_way):
            answered = form.removeprefix("{act}").split("{side}")[0]
            forms.append(f"(?P<said>{acts}){re.escape(answered)}")
    return tuple(re.compile(form, re.IGNORECASE) for form in forms)


def _position(words: _Words, position: str, draw: random.Random | None = None) -> str:
    kind = "out" if position.startswith("out") else "side" if position in words.sides else position
    side = words.sides.get(position.removeprefix("out "), "")
    forms = words.positions[kind]
    return (draw.choice(forms) if draw else forms[0]).format(side=side)
