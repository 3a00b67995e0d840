"""What a thought claims the path will do, read from its text: a direction and a change of speed.

The reader is deterministic, knows negation ("do not turn left"), leaves out what is said of other road users
("the car ahead turns left"), and answers ``none`` where nothing is claimed: no claim is never agreement. It
must read every sentence of :mod:`collector.reasoning` exactly, and does its best on a driving model's own
English.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

LateralClaim = Literal["left", "right", "straight", "none"]
LongitudinalClaim = Literal["accelerate", "decelerate", "keep", "stop", "none"]


@dataclass(frozen=True)
class Claim:
    """What a text says about both axes; an S-bend claims the direction it begins with."""

    lateral: LateralClaim = "none"
    longitudinal: LongitudinalClaim = "none"


def parse_claim(text: str) -> Claim:
    """Read the claims of an English thought.

    What the driver does ("steer right") outranks what the road does ("the lane bends right"); among equals
    the first one counts, so an S-bend claims its first direction. A stop outranks the slowing down that leads
    to it.

    Args:
        text: any text; anything unreadable claims nothing.
    """
    clauses = [_readable(clause) for clause in _clauses(text)]
    return Claim(_lateral(clauses), _longitudinal(clauses))


def _any(words: str) -> str:
    """A group that matches one of the words (each may itself be a small pattern without spaces)."""
    return "(?:" + "|".join(words.split()) + ")"


# "and" bounds a clause too, so that neither a negation nor an actor reaches across it.
_BOUNDARY = re.compile(
    r"[.,;:!?()\n]|\b" + _any("so and but because since then while as before after when if until") + r"\b"
)
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*(?:'[a-z]+)?")

# A noun for somebody else, filler words, then a verb that must be theirs: what they do is not our claim. A
# bare infinitive after the noun ("for the car to pass") may be ours, hence the endings asked of most verbs.
_AGENT = _any(
    "vehicles? cars? trucks? bus buses vans? karts? trailers? pedestrians? cyclists? bicycles? "
    "bikes? riders? "
    "motorcycles? motorcyclists? scooters? traffic drivers? leader rival opponents? competitors? they he she "
    "it(?!.(?:bends|curves|turns|winds|sweeps|veers|goes|leads))"
)
_FILLER = _any(
    "ahead in front of us me the is are was were will may might has have that which who on left "
    "right side lane "
    "hand suddenly now slowly quickly also just oncoming adjacent next to going about begins? "
    "starts? starting "
    "wants? plans intends signals signall?ing indicates indicating appears seems my our"
)
_OTHERS_ACT = (
    r"(?:\w+(?:s|ing|ed)|(?:will|may|might|about to|wants to|starts to|begins to|seems to) \w+|"
    + _any("turn slow stop brake accelerate steer swerve merge move cut change wait cross")
    + r"(?= |$))"
)
_OTHERS = re.compile(rf"\b{_AGENT}\b(?:'s)?(?: {_FILLER})*? {_OTHERS_ACT}.*")
_NEGATION = re.compile(
    r"\b(?:"
    + _any(
        r"not no never none neither nor without avoid avoids avoiding cannot unable refuses? \w+n't "
        r"dont cant wont"
    )
    + r"|instead of|rather than)\b"
)

_SIDE = r"(?P<side>left|right)(?:wards?)?"
_DEGREE = (
    "(?:"
    + _any(
        "very a an the to towards? into my our your this that upcoming next then sharply sharp "
        "gently gentle slightly "
        "slight slowly smoothly hard tight tightly strongly steadily gradually gradual wheel "
        "steering kart car "
        "vehicle little bit away off back over lanes? path wide moderate moderately long ahead "
        "further more now"
    )
    + " )*"
)
_ROAD = _any("road roadway lane track course street path circuit route curve bend corner turn way line")
_ACT = _any(
    "steer(?:s|ing)? turn(?:s|ing)? veer(?:s|ing)? nudg(?:e|es|ing) swerv(?:e|es|ing) bear(?:s|ing)? "
    "mov(?:e|es|ing) "
    "shift(?:s|ing)? drifts? merg(?:e|es|ing) go(?:es|ing)? head(?:s|ing)? chang(?:e|es|ing) "
    "pull(?:s|ing)? keeps? "
    "stays? tak(?:e|es|ing) follow(?:s|ing)? negotiat(?:e|es|ing) navigat(?:e|es|ing) enter(?:ing)? "
    "make making lean "
    "rotate round(?:ing)?"
)
_BENDING = _any("bend(?:s|ing)? curv(?:e|es|ing) sweep(?:s|ing)? winds? winding arcs? hooks? kinks?")
_CURVE_NOUN = _any("bends? curves? curvature turns? turning corners? hairpin sweeper arc kink hook chicane")
# "right of way" names no side; "the car on the left side" and "stop right now" lack a verb of turning.
_NO_SIDE = r"(?! (?:away|of way|distance|time)\b)"

_OWN_SIDE = re.compile(rf"\b{_ACT} {_DEGREE}{_SIDE}\b{_NO_SIDE}")
_ROAD_VERB = rf"(?:{_BENDING}|{_ROAD} (?:ahead )?{_any('turns goes leads veers turning veering is')})"
_ROAD_SIDE = re.compile(
    rf"\b{_ROAD_VERB} {_DEGREE}{_SIDE}\b{_NO_SIDE}"
    rf"|\b(?P<side_before>left|right)(?: hand|ward)? {_DEGREE}{_CURVE_NOUN}\b"
    rf"|\b{_CURVE_NOUN} (?:ahead )?(?:to|towards?) the (?P<side_after>left|right)\b"
)
_BEFORE_STRAIGHT = _any(
    "go going goes keep keeps keeping drive driving continues? continuing stays? steer steering head "
    "heading proceed "
    "proceeding runs? remains? move moving be is are looks mostly nearly almost the a this with wheels? long"
)
_STRAIGHT = re.compile(
    rf"\b{_BEFORE_STRAIGHT} (?:\w+ ){{0,2}}?straight\b"
    rf"|\bstraight {_any('ahead on road lane section line track stretch')}\b|^straight\b"
)
_ANY_TURN = re.compile(rf"\b(?:{_BENDING}|turn(?:s|ing)?|steer(?:s|ing)?|{_CURVE_NOUN})\b")

_SPEED = _any("speed pace velocity")
_ITS = (
    "(?:"
    + _any("the a an my our this that your its present current same constant steady set target cruising")
    + " )*"
)
_KEEPING = _any("keep(?:s|ing)? hold(?:s|ing)? maintain(?:s|ing)?")
_HALT = re.compile(
    r"\b(?:"
    + _any("stop stops stopping halt halts halting standstill stationary wait waits waiting parks?")
    + r"|(?:remain|stay) (?:still|stopped))\b(?! "
    + _any("signs? lines? lights? signals? accelerating turning steering")
    + r"\b)"
)
_NO_HALT_BEFORE = re.compile(r"\b(?:from|out of|bus|after|no|leaving) (?:a |the |full |complete )*$")
_LESS = _any(r"reduc\w+ lower\w* decreas\w+ drop dropping shed sheds cut cuts cutting lose bleed")
_SLOW = re.compile(
    r"\bslow(?:s|ing)? (?:down|to|for|before|into|until|gently|slightly|smoothly|and)\b|\bslow(?:s|ing)?$|"
    rf"\bslow(?:ing)? (?:the|our) (?:kart|car|vehicle|{_SPEED})\b|"
    r"\b(?:decelerat\w+|brak(?:e|es|ing)|coast(?:s|ing)?|yield(?:s|ing)?)\b(?! (?:lights?|signs?)\b)|"
    rf"\b{_LESS} {_ITS}{_SPEED}\b|\b(?:ease|easing|lift|back) off\b"
)
_MORE = _any(r"gain\w* increas\w+ rais\w+ build\w* pick.up picking.up resum\w+ regain\w* add more")
_FAST = re.compile(
    r"\b(?:accelerat\w+|speed(?:s|ing)? up|go faster|full throttle|throttle up)\b|"
    rf"\b{_MORE} {_ITS}{_SPEED}\b|\b(?:pick|bring|build) {_ITS}{_SPEED} up\b"
)
_HOLD = re.compile(
    rf"\b{_KEEPING} {_ITS}{_SPEED}\b|\b(?:constant|steady|same) {_SPEED}\b|"
    rf"\bcruis(?:e|es|ing)\b(?! {_SPEED})|\b{_SPEED} (?:constant|steady|unchanged)\b"
)


@dataclass(frozen=True)
class _Clause:
    """Words of one clause up to a negation, and those the negation covers."""

    plain: str
    negated: str


def _clauses(text: str) -> list[str]:
    lowered = text.lower().replace("\u2019", "'").replace("left-hand", "left").replace("right-hand", "right")
    # "slow down and steer" bounds two acts, "lane and speed" is one object: keep the pair together.
    lowered = re.sub(r"\b(lane|distance|gap|path|position) and (speed|pace)\b", r"speed", lowered)
    return [" ".join(_WORD.findall(part)) for part in _BOUNDARY.split(lowered)]


def _readable(clause: str) -> _Clause:
    ours = _OTHERS.sub("", clause)
    found = _NEGATION.search(ours)
    if found is None:
        return _Clause(ours, "")
    before, negated = ours[: found.start()].strip(), ours[found.end() :].strip()
    # "the lane does not bend": the subject before the negation claims nothing by itself.
    return _Clause(before, negated)


def _lateral(clauses: list[_Clause]) -> LateralClaim:
    for pattern in (_OWN_SIDE, _ROAD_SIDE):
        places = []
        for clause in clauses:
            found = pattern.search(clause.plain)
            straight = _STRAIGHT.search(clause.plain)
            if found is not None:
                side = next(value for value in found.groupdict().values() if value)
                places.append((side, straight is not None and straight.start() < found.start()))
        if places:
            side, straight_first = places[0]
            return "straight" if straight_first else cast(LateralClaim, side)
    if any(_STRAIGHT.search(clause.plain) for clause in clauses):
        return "straight"
    for clause in clauses:
        sides = set(re.findall(r"\b(?:left|right)\b", clause.negated))
        if len(sides) != 1 and _ANY_TURN.search(clause.negated):
            return "straight"
    return "none"


def _longitudinal(clauses: list[_Clause]) -> LongitudinalClaim:
    first: LongitudinalClaim = "none"
    for clause in clauses:
        halt = _HALT.search(clause.plain)
        if (
            halt is not None
            and not _NO_HALT_BEFORE.search(clause.plain[: halt.start()])
            and first != "accelerate"
        ):
            return "stop"
        if first != "none":
            continue
        found: list[tuple[int, LongitudinalClaim]] = []
        for name, pattern in (("decelerate", _SLOW), ("accelerate", _FAST), ("keep", _HOLD)):
            match = pattern.search(clause.plain)
            if match is not None:
                found.append((match.start(), cast(LongitudinalClaim, name)))
        if found:
            first = min(found)[1]
    return first
