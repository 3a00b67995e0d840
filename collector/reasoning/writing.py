"""Reasoning texts written from geometry: one English or Japanese sentence naming cause and action on both axes.

The grammar is small on purpose: a tiny model must learn its words, and
:func:`collector.reasoning.consistency.parse_claim` must read every sentence back to exactly the motion it was written
from. Bends are graded (gentle, medium, sharp) and placed (here or ahead); an S-bend names both directions in driving
order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from collector.geometry.curvature import DEFAULT_THRESHOLDS, CurveSegment, CurveThresholds, Grade
from collector.reasoning.claims import Language
from collector.reasoning.consistency import Motion, SpeedChange


@dataclass(frozen=True)
class _Words:
    """How one language says it; every list holds equivalent phrasings.

    ``bends`` takes ``{adverb}``, ``{sides}`` and ``{ahead}``; ``begins`` takes ``{adjective}`` and ``{side}``.
    """

    sentence: str
    speed: Mapping[SpeedChange, tuple[str, ...]]
    straight_causes: tuple[str, ...]
    straight_actions: tuple[str, ...]
    bends: tuple[str, ...]
    begins: tuple[str, str]  # of a bend: from now on, ahead
    curve_actions: tuple[str, ...]
    s_action: str
    s_sides: str
    sides: Mapping[str, str]
    adverb: Mapping[Grade, str]
    adjective: Mapping[Grade, str]
    ahead: tuple[str, str]  # the same, said of the lane


# A given motion and seed must go on giving this very English: the tiny base has learnt it.
_WORDS: dict[Language, _Words] = {
    "en": _Words(
        sentence="{cause}, so {speed} and {action}.",
        speed={
            "accelerate": ("speed up", "accelerate"),
            "decelerate": ("slow down", "brake"),
            "keep": ("keep the speed", "hold the speed"),
            "stop": ("stop", "come to a stop"),
        },
        straight_causes=("The lane is straight", "The road ahead is straight", "The lane runs straight"),
        straight_actions=("keep straight", "go straight on"),
        bends=("The lane bends {adverb}{sides} {ahead}", "The road bends {adverb}{sides} {ahead}"),
        begins=("A {adjective}{side} bend begins now", "A {adjective}{side} bend is ahead"),
        curve_actions=("steer {side} to keep the lane", "steer {side} to follow the lane", "turn {side} with the road"),
        s_action="steer {sides}",
        s_sides="{} and then {}",
        sides={"left": "left", "right": "right"},
        adverb={"gentle": "gently ", "medium": "", "sharp": "sharply "},
        adjective={"gentle": "gentle ", "medium": "", "sharp": "sharp "},
        ahead=("now", "ahead"),
    ),
    "ja": _Words(
        sentence="{cause}ので、{action}ながら{speed}。",
        speed={
            "accelerate": ("速度を上げる", "加速する"),
            "decelerate": ("減速する", "ブレーキをかける"),
            "keep": ("速度を維持する", "速度を保つ"),
            "stop": ("停止する", "止まる"),
        },
        straight_causes=("車線がまっすぐな", "前方の道路が直線な", "車線がまっすぐ続いている"),
        straight_actions=("直進し", "まっすぐ進み"),
        bends=("車線が{ahead}{adverb}{sides}に曲がる", "道路が{ahead}{adverb}{sides}に曲がる"),
        begins=("ここで{adjective}{side}カーブが始まる", "この先{adjective}{side}カーブがある"),
        curve_actions=("{side}に操舵して車線を維持し", "車線に沿って{side}に操舵し", "道なりに{side}に曲がり"),
        s_action="{sides}に操舵し",
        s_sides="{}、続いて{}",
        sides={"left": "左", "right": "右"},
        adverb={"gentle": "緩やかに", "medium": "", "sharp": "急に"},
        adjective={"gentle": "緩やかな", "medium": "", "sharp": "急な"},
        ahead=("ここで", "この先"),
    ),
}

_MIRRORED = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "左": "右", "ひだり": "みぎ"}
_MIRRORED |= {other: side for side, other in _MIRRORED.items()}
# What names both sides or none stays: "right of way", "all right", 左右 and 右左 (both sides), 右左折 (any turn).
_SIDE_WORD = re.compile(
    r"(?P<kept>\bright(?= away\b|[ -]of[ -]way\b)|(?<=\b[Aa]ll )right\b|[左右]*(?:左右|右左)[左右]*)|"
    r"\b(?:left|right|Left|Right|LEFT|RIGHT)(?=(?:wards?|most|hand|hander)?\b)|左|右|ひだり|みぎ"
)


def write_reasoning(
    motion: Motion, seed: int, thresholds: CurveThresholds = DEFAULT_THRESHOLDS, language: Language = "en"
) -> str:
    """Write the reasoning of a motion.

    The seed chooses among equivalent phrasings: the same motion and seed give the same text, and a mirrored motion
    gives the same text with left and right exchanged. English is as the released model speaks: a sentence of at most
    22 words, such as "The lane bends right ahead, so slow down and steer right to keep the lane.", or
    "車線がこの先右に曲がるので、右に操舵して車線を維持しながら減速する。"
    """
    words, draw = _WORDS[language], random.Random(seed)
    speed = draw.choice(words.speed[motion.longitudinal])
    if motion.curve.curves:
        cause, action = _curve_words(words, motion.curve.curves, thresholds, draw)
    else:
        cause, action = draw.choice(words.straight_causes), draw.choice(words.straight_actions)
    return words.sentence.format(cause=cause, action=action, speed=speed)


def swap_sides(text: str) -> str:
    """A reasoning as a mirror tells it: left and right exchanged, in English and Japanese."""
    return _SIDE_WORD.sub(lambda word: word["kept"] or _MIRRORED[word.group()], text)


def _curve_words(
    words: _Words, curves: tuple[CurveSegment, ...], thresholds: CurveThresholds, draw: random.Random
) -> tuple[str, str]:
    """Cause and action of a path with curves: the first one, and the side of a later one that turns the other way."""
    first, grade = curves[0], thresholds.grade(curves[0].max_abs_curvature_1pm)
    is_ahead = first.start_m > thresholds.now_m
    side = sides = words.sides[first.direction]
    action = draw.choice(words.curve_actions)
    causes = words.bends
    other = next((curve.direction for curve in curves if curve.direction != first.direction), None)
    if other is None:
        causes += (words.begins[is_ahead],)
    else:
        sides, action = words.s_sides.format(side, words.sides[other]), words.s_action
    names = {"side": side, "sides": sides, "adverb": words.adverb[grade], "adjective": words.adjective[grade]}
    return draw.choice(causes).format(**names, ahead=words.ahead[is_ahead]), action.format(**names)
