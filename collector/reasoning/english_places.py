"""Places on the road and paces read from English clauses: "keep to the left edge", "take the bend slowly".

A side with an edge behind it is a place; a side alone ("keep left") stays a direction, as it always was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from collector.reasoning.claims import PaceClaim, PositionClaim, any_of

_EDGE = any_of("sides? edges? borders? kerbs? curbs? boundary limits? half margin verge shoulder")
_ROAD = any_of("road roadway lane track course street path circuit")
_TO = any_of(
    "to on at near along close by next the our its this that far very extreme outer inner outermost in inside over "
    "towards? well tight tightly hard slightly a little bit more just as possible out back again up "
    "wide kart car vehicle"
)
_STAY = any_of(
    "keep(?:s|ing)? stay(?:s|ing)? stick(?:s|ing)? hug(?:s|ging)? hold(?:s|ing)? driv(?:e|es|ing) run(?:s|ning)? "
    "remain(?:s|ing)? rid(?:e|es|ing) follow(?:s|ing)? skirt(?:s|ing)? be continu(?:e|es|ing) us(?:e|es|ing) "
    "position plac(?:e|es|ing) put"
)
_MOVE = any_of(
    "mov(?:e|es|ing) shift(?:s|ing)? drift(?:s|ing)? edg(?:e|es|ing) eas(?:e|es|ing) go(?:es|ing)? com(?:e|es|ing) "
    "head(?:s|ing)? get(?:s|ting)? steer(?:s|ing)? veer(?:s|ing)? swing(?:s|ing)? pull(?:s|ing)? return(?:s|ing)?"
)
_SIDE = r"(?P<side>left|right)"
_MIDDLES = any_of("middle centre center centreline centerline centred centered")
_THE_ROAD = rf"(?:(?:the|our|this|that|a) )?(?:{_ROAD}|{_MIDDLES}|bend|curve|corner|hairpin)\b"
# "On the left side" of somebody else is where they are.
_AT_SIDE = rf"(?:{_TO} )*{_SIDE}(?: hand)?(?:(?: {_ROAD})? {_EDGE}\b(?! of (?!{_THE_ROAD}))| of {_THE_ROAD})"
_STAY_AT = re.compile(rf"\b{_STAY} {_AT_SIDE}|\b{_STAY} (?:{_TO} )*far {_SIDE.replace('side', 'far')}\b")
_MOVE_TO = re.compile(rf"\b{_MOVE} {_AT_SIDE}")
_MIDDLE = re.compile(rf"\b(?:{_STAY}|{_MOVE}) (?:(?:{_TO}|{_ROAD}) )*{_MIDDLES}\b")
_OUT = re.compile(rf"\b(?:pull|mov|swing|go|steer|swerv)(?:e|es|s|ing)? out (?:(?:to|on|towards?|the) )*{_SIDE}\b")
_BACK = re.compile(r"\b(?:back|return(?:s|ing)?|rejoin(?:s|ing)?)\b")

_DRIVING = any_of(
    "driv(?:e|es|ing) go(?:es|ing)? tak(?:e|es|ing) roll(?:s|ing)? proceed(?:s|ing)? run(?:s|ning)? corner(?:s|ing)? "
    "enter(?:s|ing)? round(?:s|ing)? travel(?:s|ling|ing)? negotiat(?:e|es|ing) rid(?:e|es|ing) continu(?:e|es|ing) "
    "lap(?:s|ping)? mov(?:e|es|ing) pass(?:es|ing)? exit(?:s|ing)? through"
)
_AT_PACE = r"at (?:a |an )?(?:very |rather |quite )?{} (?:speeds?|pace)"
_PACES: dict[PaceClaim, str] = {
    "slow": rf"(?:slowly|unhurriedly|leisurely|{_AT_PACE.format('(?:low|slow|walking|leisurely|gentle)')}|at a crawl)",
    "brisk": rf"(?:briskly|quickly|swiftly|fast|{_AT_PACE.format('(?:high|brisk|quick|fast)')})",
}
# "More slowly" is a change of speed, and read as one.
_DRIVEN = {
    pace: re.compile(rf"\b{_DRIVING}(?: (?!more\b|less\b|too\b|not\b)\w+){{0,5}}? {words}\b|\b{words} {_DRIVING}\b")
    for pace, words in _PACES.items()
}


def read_places(clauses: Sequence[str]) -> tuple[tuple[PositionClaim, ...], tuple[PaceClaim, ...]]:
    """The places and the paces that clauses claim of us, each in order of speaking."""
    positions: list[PositionClaim] = []
    paces: list[PaceClaim] = []
    for number, clause in enumerate(clauses):
        found: list[tuple[int, str]] = [
            (match.start(), _side_of(match)) for places in (_STAY_AT, _MOVE_TO) for match in places.finditer(clause)
        ]
        found += [(match.start(), "middle") for match in _MIDDLE.finditer(clause)]
        for match in _OUT.finditer(clause):
            if _comes_back(clauses, number, match.end()):
                found.append((match.start(), f"out {_side_of(match)}"))
        positions += [cast(PositionClaim, place) for _, place in sorted(found)]
        driven = [(match.start(), pace) for pace, words in _DRIVEN.items() for match in words.finditer(clause)]
        paces += [pace for _, pace in sorted(driven)]
    return _unless_out(positions), tuple(paces)


def without_places(clauses: Sequence[str]) -> list[str]:
    """The clauses without what names a place: to stay at a side, or to pull out and come back, is no turn."""
    left = []
    for number, clause in enumerate(clauses):
        rest = _STAY_AT.sub("", clause)
        match = _OUT.search(rest)
        if match and _comes_back(clauses, number, _OUT.search(clause).end()):  # type: ignore[union-attr]
            rest = rest[: match.start()] + rest[match.end() :]
        left.append(rest)
    return left


def _comes_back(clauses: Sequence[str], number: int, end: int) -> bool:
    return any(_BACK.search(text) for text in (clauses[number][end:], *clauses[number + 1 : number + 3]))


def _unless_out(positions: Sequence[PositionClaim]) -> tuple[PositionClaim, ...]:
    """Who pulls out and back says where to on the way: that is no place of its own."""
    out = [place for place in positions if place.startswith("out")]
    return tuple(out or positions)


def _side_of(match: re.Match[str]) -> str:
    return next(side for side in match.groups() if side)
