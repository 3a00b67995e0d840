"""Claims read from English, for :mod:`collector.reasoning.consistency`: who does what, clause by clause."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast

from collector.reasoning.claims import LateralClaim, LongitudinalClaim, Said, any_of
from collector.reasoning.english_places import read_places, without_places


def read(text: str) -> tuple[Said, Said]:
    """What a text says, and what of that comes after its last "but", which takes back what was said before."""
    clauses = _clauses(text)
    turns = clauses[-1].turns if clauses else 0
    return _said(clauses), _said([clause for clause in clauses if clause.turns == turns]) if turns else Said()


def _said(clauses: list[_Clause]) -> Said:
    positions, paces = read_places([clause.plain for clause in clauses])
    sided = [
        replace(clause, plain=plain)
        for clause, plain in zip(clauses, without_places([each.plain for each in clauses]), strict=True)
    ]
    return Said(tuple(_own_sides(sided)), tuple(_road_sides(sided)), tuple(_speeds(clauses)), positions, paces)


# "and" bounds a clause too, so that neither a negation nor an actor reaches across it.
_BOUNDARY = re.compile(
    r"([.,;:!?()\n]|\b" + any_of("so and but because since then while as before after when if until") + r"\b)"
)
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*(?:'[a-z]+)?")

# A noun for somebody else, filler words, then a verb that must be theirs: what they do is not our claim. A
# bare infinitive after the noun ("for the car to pass") may be ours, hence the endings asked of most verbs.
_AGENT = any_of(
    "vehicles? cars? trucks? bus buses vans? karts? trailers? tractors? lorry lorries taxis? ambulances? police "
    "pedestrians? cyclists? bicycles? bikes? riders? motorcycles? motorcyclists? scooters? traffic drivers? leaders? "
    "rivals? opponents? competitors? persons? people man woman child children kids? animals? dogs? someone somebody "
    "others? workers? queue they he she it(?!.(?:bends|curves|turns|winds|sweeps|veers|goes|leads))"
)
_FILLER = any_of(
    "ahead in front of behind us me the is are was were will may might has have had that which who on left right side "
    "lane hand suddenly now slowly quickly also just oncoming adjacent next to going about begins? starts? starting "
    "wants? plans intends signals signall?ing indicates indicating appears seems my our from"
)
_OTHERS_ACT = (
    r"(?:\w+(?:s|ing|ed)\b|(?:will|may|might|about to|wants to|starts to|begins to|seems to) \w+|"
    + any_of(
        "turn slow stop brake accelerate steer swerve merge move cut change wait cross collide crash come go drive "
        "stay pull spin leave enter block yield approach pass overtake bear veer"
    )
    + r"(?= |$))"
)
_OTHERS = re.compile(rf"\b{_AGENT}\b(?:'s)?(?: {_FILLER})*? {_OTHERS_ACT}.*")
_OURSELVES = re.compile(r"\b(?:the |our |my )?(?:ego|own) (?:vehicle|car|kart)\b|\b(?:our|my) (?:vehicle|car|kart)\b")
_NEGATION = re.compile(
    r"\b(?:"
    + any_of(
        r"not no never none neither nor without avoid avoids avoiding cannot unable refuses? \w+n't dont cant wont "
        r"abort\w* cancel\w* forgo nobody nothing"
    )
    + r"|instead of|rather than|(?:stop|quit|cease)(?= (?!moving|driving)\w+ing\b))\b"
)
# Where something is not done is no part of what is not done: "never accelerate in the left bend".
_PLACE = re.compile(r"\b(?:in(?! speed| pace)|through|during|at|on|around|along|for)\b")

_SIDE = r"(?P<side>left|right)(?:wards?)?"
_DEGREES = any_of(
    "very a an the to towards? into my our your us this that upcoming next then now first just out sharply sharp "
    "gently gentle slightly slight slowly smoothly hard tight tightly strongly steadily gradually gradual wheel "
    "steering kart car vehicle little bit touch tad fraction notch away off back over lanes? path wide moderate "
    "moderately long ahead further more"
)
_DEGREE = rf"(?:{_DEGREES} )*"
_ROAD = any_of("road roadway lane track course street path circuit route curve bend corner turn way line")
_ACT = any_of(
    "steer(?:s|ing)? turn(?:s|ing)? veer(?:s|ing)? nudg(?:e|es|ing) swerv(?:e|es|ing) bear(?:s|ing)? mov(?:e|es|ing) "
    "shift(?:s|ing)? drift(?:s|ing)? merg(?:e|es|ing) go(?:es|ing)? head(?:s|ing)? chang(?:e|es|ing) pull(?:s|ing)? "
    "keeps? stays? tak(?:e|es|ing) follow(?:s|ing)? negotiat(?:e|es|ing) navigat(?:e|es|ing) enter(?:ing)? make making "
    "lean(?:s|ing)? rotate round(?:ing)? swing(?:s|ing)? edg(?:e|es|ing) eas(?:e|es|ing) cut(?:s|ting)? get(?:s|ting)? "
    "dodg(?:e|es|ing) guid(?:e|es|ing) stick(?:s|ing)? hug(?:s|ging)? aim(?:s|ing)? div(?:e|es|ing) point(?:s|ing)? "
    "offset slid(?:e|es|ing) tuck(?:s|ing)? angle favou?r"
)
_BENDING = any_of(
    "bend(?:s|ing)? curv(?:e|es|ing) sweep(?:s|ing)? winds? winding arcs? hooks? kinks? snakes? snaking meanders? "
    "zigzags? doubles?.back loops? hairpins"
)
_CURVE_NOUN = any_of(
    "bends? curves? curvature turns? turning corners? hairpins? sweeper arc kink hook chicane combination sequence"
)
# "right of way" names no side; "the car on the left side" and "stop right now" lack a verb of turning.
_NO_SIDE = r"(?! (?:away|of way|distance|time)\b)"

_OWN_SIDE = re.compile(
    rf"\b{_ACT} {_DEGREE}{_SIDE}\b{_NO_SIDE}"
    r"|\b(?P<side_act>left|right) (?:steering|lock|nudge|swerve|lane change|shift)\b"
    r"|\b(?:pass|overtak)\w* (?:it |them |him |her )?on (?:the|its|their) (?P<side_past>left|right)\b"
)
_ROAD_VERB = (
    rf"(?:{_BENDING}|(?:{_ROAD}|{_CURVE_NOUN}) (?:ahead )?"
    rf"{any_of('turns goes leads veers runs swings merges moves shifts bears heads turning veering is')})"
)
_ROAD_SIDE = re.compile(
    rf"\b{_ROAD_VERB} {_DEGREE}{_SIDE}\b{_NO_SIDE}"
    rf"|\b(?P<side_before>left|right)(?: hand|ward)? {_DEGREE}{_CURVE_NOUN}\b"
    rf"|\b{_CURVE_NOUN} (?:ahead )?(?:to|towards?) the (?P<side_after>left|right)\b"
    rf"|\b{any_of('tight sharp hard gentle blind easy slow fast long')} (?P<side_noun>left|right)\b"
    r"(?! (?:lane|side|edge|mirror|arrow))"
    rf"|^{_DEGREE}(?P<side_alone>left|right)(?: {_DEGREES})*$"
)
# "The track turns left" is the road's act; "at the corner turn left" is ours.
_ROAD_BEFORE = re.compile(rf"\b(?:{_ROAD}|{_CURVE_NOUN}) (?:{any_of('ahead now also here soon first suddenly')} )*$")
_OF_IT = re.compile(r"\w+(?:s|ing)\b")
_GOING = any_of(
    "go going goes keep keeps keeping drive driving continues? continuing stays? steer steering head heading proceed "
    "proceeding carry carrying move moving"
)
_OWN_STRAIGHT = re.compile(rf"\b{_GOING} (?:\w+ ){{0,2}}?straight\b")
_STRAIGHT = re.compile(
    rf"\b{any_of('runs? remains? be is are looks mostly nearly almost the a this with wheels? long')} "
    r"(?:\w+ ){0,2}?straight\b"
    rf"|\bstraight {any_of('ahead on road lane section line track stretch')}\b|^straight\b"
)
_ANY_TURN = re.compile(rf"\b(?:{_BENDING}|turn(?:s|ing)?|steer(?:s|ing)?|{_CURVE_NOUN})\b")

_SPEED = any_of("speed pace velocity")
_STEADY = any_of("present current same constant steady unchanged")
_ITS = rf"(?:{any_of('the a an my our this that your its set target cruising some of much')} |{_STEADY} )*"
_KEEPING = any_of("keep(?:s|ing)? hold(?:s|ing)? maintain(?:s|ing)? sustain preserve retain leave carry(?:ing)?")
_HALT = re.compile(
    r"\b(?:"
    + any_of("stop stops stopping halt halts halting standstill wait waiting parks? parking")
    + r"|(?:remain|stay|stand|hold|keep|be) (?:still|stopped|put|stationary|parked)|hold (?:the |our )?position|"
    r"(?:come|comes|coming) to rest|pull(?:s|ing)? up)\b"
    r"(?! (?:signs?|lines?|lights?|signals?|(?!moving|driving)\w+ing)\b)"
)
_NO_HALT_BEFORE = re.compile(r"\b(?:from|out of|bus|after|no|leaving) (?:a |the |full |complete )*$")
_LESS = any_of(
    r"reduc\w+ lower\w* decreas\w+ drop dropping sheds? shedding cut cuts cutting lose losing bleed scrub\w* kill wash "
    r"moderate slacken lessen rein check tak(?:e|es|ing)(?=.\w+.\w+.(?:off|out)\b|.\w+.(?:off|out)\b)"
)
_PRESSING = any_of(
    "press(?:es|ing)? appl(?:y|ies|ying) hit(?:s|ting)? us(?:e|es|ing) squeez(?:e|es|ing) tap(?:ping)? trail "
    "step(?:ping)?"
)
_PEDAL = any_of("throttle gas accelerator power")
_SLOW = re.compile(
    r"\bslow(?:s|ing)? (?:down|up|to|for|before|into|until|gently|slightly|smoothly|and)\b|\bslow(?:s|ing)?$|"
    rf"\bslow(?:ing)? (?:the|our) (?:kart|car|vehicle|{_SPEED})\b|\b(?:(?:go|drive|get|move) slower|more slowly)\b|"
    r"\b(?:decelerat\w+|brak(?:e|es|ing)|coast(?:s|ing)?|yield(?:s|ing)?|downshift\w*|giv(?:e|es|ing) way|"
    r"take it (?:slow|easy)\w*)\b(?! (?:lights?|signs?|lamps?)\b)|"
    rf"\b{_LESS} (?:off |down |in |out )?{_ITS}{_SPEED}\b|\b(?:lower|reduced|slower) {_SPEED}\b|"
    rf"\b{_SPEED} (?:(?:has|needs|have) to |must |should |will )?(?:(?:come|go)(?:es|s)? down|drops?|falls?)\b|"
    r"\b(?:eas(?:e|es|ing) (?:off|up)|(?:lift|back)(?:s|ing)? off)\b|\bon the brakes?\b|"
    rf"\b{_PRESSING} (?:on )?(?:the )?brakes?\b|\b(?:off|release|releasing|ease|easing|less) (?:the )?{_PEDAL}\b"
)
_MORE = any_of(
    r"gain\w* gather\w* increas\w+ rais\w+ build\w* pick.up picking.up resum\w+ regain\w* restor\w+ add more higher"
)
_FAST = re.compile(
    r"\b(?:accelerat\w+|speed(?:s|ing)? (?:back )?up|(?:go|get|drive) faster|throttle up|floor it|step on it)\b|"
    rf"\b(?:full|more|on the|open the) {_PEDAL}\b|\b{_PRESSING} (?:on )?(?:the )?{_PEDAL}\b|"
    r"\bput (?:the power|your foot|our foot) down\b|"
    rf"\b{_MORE} (?:back |up )?{_ITS}{_SPEED}\b|\b(?:pick|bring|build) {_ITS}{_SPEED} (?:back )?up\b|"
    rf"\b(?:back|return|get) (?:up )?to {_ITS}{_SPEED}\b|"
    r"\b(?:start(?:s|ing)? moving|pull(?:s|ing)? away|set(?:s|ting)? off|move off|drive off|get going)\b"
)
_HOLD = re.compile(
    rf"\b{_KEEPING} {_ITS}{_SPEED}\b|\b{_STEADY} {_SPEED}\b|\b(?:constant|steady) {_PEDAL}\b|"
    rf"\bcruis(?:e|es|ing)\b(?! {_SPEED})|\b{_SPEED} (?:stays? |remains? |is )?(?:the )?{_STEADY}\b|"
    rf"\bstay(?:s|ing)? at {_ITS}{_SPEED}\b|\b{_SPEED} (?:where|as) it is\b|"
    rf"\b{_KEEPING} (?:it|this|things) (?:steady|constant|there|so)\b"
)
_SPEEDS: dict[LongitudinalClaim, re.Pattern[str]] = {
    "stop": _HALT,
    "decelerate": _SLOW,
    "accelerate": _FAST,
    "keep": _HOLD,
}
_CHANGE_OF_SPEED = re.compile(rf"\b(?:chang(?:es?|ing)|alter(?:ing)?|vary(?:ing)?) (?:in )?{_ITS}{_SPEED}\b")
_OWN_SUBJECT = re.compile(rf"\b(?:we|i|our|us)\b|^(?:the|this|a) {_ROAD}\b")
# "Follow the car that turns left and slow down": with a verb of our own before them, the "and" is ours.
_OWN_VERB = re.compile(
    rf"\b(?:{_ACT}|{_KEEPING}|yield|wait|let|give|pass|slow|brake|stop|avoid|overtake|watch|accelerate|mind)\b"
)
_NOUN = re.compile(rf"\b(?:(?P<agent>(?!it\b){_AGENT})|(?P<road>{_ROAD}))\b|\bit\b")


@dataclass(frozen=True)
class _Clause:
    """Words of one clause that are said of us or the road, and those that a negation covers."""

    plain: str
    negated: str
    turns: int  # how often the text has said "but" before


def _clauses(text: str) -> list[_Clause]:
    lowered = text.lower().replace("\u2019", "'")
    lowered = re.sub(r"\b(left|right)[ -](?:hander|left|right)\b", r"\1 bend", lowered)
    lowered = re.sub(r"\b(left|right)-hand\b", r"\1", lowered)
    lowered = _OURSELVES.sub("we", lowered)
    # "slow down and steer" bounds two acts, "lane and speed" is one object: keep the pair together.
    lowered = re.sub(r"\b(lane|distance|gap|path|position|direction) (?:and|or) (speed|pace)\b", r"speed", lowered)
    lowered = _name_it(lowered)
    pieces = _BOUNDARY.split(lowered)
    clauses, theirs, turns = [], False, 0
    for joint, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        turns += joint == "but"
        words = " ".join(_WORD.findall(piece))
        words = re.sub(r"^.*\b(?:let|lets|letting|allow|allows|allowing) us\b", "", words)
        if re.match("(?:which|who|that) ", words) or (theirs and joint == "and" and not _OWN_SUBJECT.search(words)):
            continue  # still about those others
        ours = _OTHERS.sub("", words)
        theirs = ours != words and len(ours.split()) <= 4 and not _OWN_VERB.search(ours)
        negation = _NEGATION.search(ours)
        if negation is None:
            clauses.append(_Clause(ours, "", turns))
            continue
        # "the lane does not bend": the subject before the negation claims nothing by itself.
        negated, place = ours[negation.end() :].strip(), ""
        if found := _PLACE.search(negated):
            negated, place = negated[: found.start()].strip(), negated[found.start() :]
        clauses.append(_Clause(f"{ours[: negation.start()].strip()} {place}".strip(), negated, turns))
    return clauses


def _name_it(text: str) -> str:
    """The text with each "it" that stands for another road user named so: "the car slows, since it turns left"."""
    last = ""

    def named(found: re.Match[str]) -> str:
        nonlocal last
        if found.group() != "it":
            last = found.lastgroup or ""
            return found.group()
        return "they" if last == "agent" else "it"

    return _NOUN.sub(named, text)


def _own_sides(clauses: list[_Clause]) -> list[LateralClaim]:
    sides: list[LateralClaim] = []
    road_spoke = False
    for clause in clauses:
        found: list[tuple[int, LateralClaim]] = []
        for match in _OWN_SIDE.finditer(clause.plain):
            before = clause.plain[: match.start()]
            # "The road turns right before turning left": the second verb has the first one's subject.
            of_road = _ROAD_BEFORE.search(before) or (road_spoke and not before)
            if not (of_road and _OF_IT.match(match.group())):
                found.append((match.start(), _named(match)))
        road_spoke = not found and _ROAD_SIDE.search(clause.plain) is not None
        found += [(match.start(), "straight") for match in _OWN_STRAIGHT.finditer(clause.plain)]
        sides += [side for _, side in sorted(found)]
    return sides


def _named(match: re.Match[str]) -> LateralClaim:
    return cast("LateralClaim", next(side for side in match.groups() if side))


def _road_sides(clauses: list[_Clause]) -> list[LateralClaim]:
    # "Right, we go": a word for yes, not a side, at the very beginning.
    sides = [
        _named(match)
        for clause in clauses
        if clause.plain != "right" or clause is not clauses[0]
        for match in _ROAD_SIDE.finditer(clause.plain)
    ]
    if any(_STRAIGHT.search(clause.plain) for clause in clauses):
        sides.append("straight")
    for clause in clauses:
        named = set(re.findall(r"\b(?:left|right)\b", clause.negated))
        turning = _ANY_TURN.search(clause.negated if not named else f"{clause.plain} {clause.negated}")
        if len(named) != 1 and turning:
            sides.append("straight")
    return sides


def _speeds(clauses: list[_Clause]) -> list[LongitudinalClaim]:
    speeds: list[LongitudinalClaim] = []
    for clause in clauses:
        found = [
            (match.start(), speed)
            for speed, acts in _SPEEDS.items()
            for match in acts.finditer(clause.plain)
            if speed != "stop" or not _NO_HALT_BEFORE.search(clause.plain[: match.start()])
        ]
        if _CHANGE_OF_SPEED.search(clause.negated):
            found.append((len(clause.plain), "keep"))
        speeds += [speed for _, speed in sorted(found)]
    return speeds
