"""Reasoning texts written from geometry: one English or Japanese sentence naming cause and action on both axes.

The grammar is small on purpose: a tiny model must learn its words, and :func:`collector.reasoning.parser.parse_claim`
must read every sentence back to exactly the motion it was written from. Bends are graded (gentle, plain,
sharp) and placed (here or ahead); an S-bend names both directions in driving order.
"""

from __future__ import annotations

import random
import re

from collector.geometry.curvature import DEFAULT_THRESHOLDS, CurveSegment, CurveThresholds
from collector.reasoning.claims import Language
from collector.reasoning.consistency import Motion, SpeedChange

_SPEED_WORDS: dict[SpeedChange, tuple[str, ...]] = {
    "accelerate": ("speed up", "accelerate"),
    "decelerate": ("slow down", "brake"),
    "keep": ("keep the speed", "hold the speed"),
    "stop": ("stop", "come to a stop"),
}
_STRAIGHT_CAUSES = ("The lane is straight", "The road ahead is straight", "The lane runs straight")
_STRAIGHT_ACTIONS = ("keep straight", "go straight on")
_CURVE_ACTIONS = ("steer {side} to keep the lane", "steer {side} to follow the lane", "turn {side} with the road")
_ADVERB = {"gentle": "gently ", "plain": "", "sharp": "sharply "}
_ADJECTIVE = {"gentle": "gentle ", "plain": "", "sharp": "sharp "}

_SPEED_WORDS_JA: dict[SpeedChange, tuple[str, ...]] = {
    "accelerate": ("速度を上げる", "加速する"),
    "decelerate": ("減速する", "ブレーキをかける"),
    "keep": ("速度を維持する", "速度を保つ"),
    "stop": ("停止する", "止まる"),
}
_STRAIGHT_CAUSES_JA = ("車線がまっすぐな", "前方の道路が直線な", "車線がまっすぐ続いている")
_STRAIGHT_ACTIONS_JA = ("直進し", "まっすぐ進み")
_CURVE_ACTIONS_JA = ("{side}に操舵して車線を維持し", "車線に沿って{side}に操舵し", "道なりに{side}に曲がり")
_SIDE_JA = {"left": "左", "right": "右"}
_ADVERB_JA = {"gentle": "緩やかに", "plain": "", "sharp": "急に"}
_ADJECTIVE_JA = {"gentle": "緩やかな", "plain": "", "sharp": "急な"}

_MIRRORED = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "左": "右", "ひだり": "みぎ"}
_MIRRORED |= {other: side for side, other in _MIRRORED.items()}
# What names both sides or none stays: "right of way", "all right", 左右 (both sides), 右左折 (any turn).
_SIDE_WORD = re.compile(
    r"(?P<kept>\bright(?= away\b|[ -]of[ -]way\b)|(?<=\b[Aa]ll )right\b|左右|右左折)|"
    r"\b(?:left|right|Left|Right|LEFT|RIGHT)(?=(?:wards?|most|hand|hander)?\b)|左|右|ひだり|みぎ"
)


def write_reasoning(
    motion: Motion, seed: int, thresholds: CurveThresholds = DEFAULT_THRESHOLDS, language: Language = "en"
) -> str:
    """Write the reasoning of a motion.

    Args:
        motion: what the path will do.
        seed: chooses among equivalent phrasings; the same motion and seed give the same text, and a mirrored
            motion gives the same text with left and right exchanged.
        thresholds: ``now_m`` and the two grades of sharpness.
        language: English as the released model speaks, or Japanese.

    Returns:
        A sentence of at most 22 words, such as "The lane bends right ahead, so slow down and steer right to
        keep the lane.", or "車線がこの先右に曲がるので、右に操舵して車線を維持しながら減速する。"
    """
    draw = random.Random(seed)
    if language == "ja":
        return _write_japanese(motion, thresholds, draw)
    # A given motion and seed must go on giving this very English: the tiny base has learnt it.
    speed = draw.choice(_SPEED_WORDS[motion.longitudinal])
    if not motion.curve.curves:
        cause, action = draw.choice(_STRAIGHT_CAUSES), draw.choice(_STRAIGHT_ACTIONS)
    else:
        cause, action = _curve_words(motion.curve.curves, thresholds, draw)
    return f"{cause}, so {speed} and {action}."


def swap_sides(text: str) -> str:
    """A reasoning as a mirror tells it: left and right exchanged, in English and Japanese."""
    return _SIDE_WORD.sub(lambda word: word["kept"] or _MIRRORED[word.group()], text)


def bend_grade(curve: CurveSegment, thresholds: CurveThresholds = DEFAULT_THRESHOLDS) -> str:
    """How tight a curve is, in the words of a reasoning: gentle, plain or sharp."""
    if curve.max_abs_curvature_1pm < thresholds.gentle_curvature_1pm:
        return "gentle"
    return "sharp" if curve.max_abs_curvature_1pm > thresholds.sharp_curvature_1pm else "plain"


def _curve_words(curves: tuple[CurveSegment, ...], thresholds: CurveThresholds, draw: random.Random) -> tuple[str, str]:
    first, other, grade, ahead = _bends(curves, thresholds)
    sides = first.direction if other is None else f"{first.direction} and then {other}"
    action = draw.choice(_CURVE_ACTIONS).format(side=first.direction)
    causes = [
        f"{road} bends {_ADVERB[grade]}{sides}{' ahead' if ahead else ' now'}" for road in ("The lane", "The road")
    ]
    if other is None:
        place = "is ahead" if ahead else "begins now"
        causes.append(f"A {_ADJECTIVE[grade]}{first.direction} bend {place}")
    else:
        action = f"steer {first.direction} and then {other}"
    return draw.choice(causes), action


def _bends(curves: tuple[CurveSegment, ...], thresholds: CurveThresholds) -> tuple[CurveSegment, str | None, str, bool]:
    """The first curve, the direction of a later one that turns the other way, the first one's grade, whether ahead."""
    first = curves[0]
    other = next((curve.direction for curve in curves if curve.direction != first.direction), None)
    return first, other, bend_grade(first, thresholds), first.start_m > thresholds.now_m


def _write_japanese(motion: Motion, thresholds: CurveThresholds, draw: random.Random) -> str:
    speed = draw.choice(_SPEED_WORDS_JA[motion.longitudinal])
    if not motion.curve.curves:
        cause, action = draw.choice(_STRAIGHT_CAUSES_JA), draw.choice(_STRAIGHT_ACTIONS_JA)
    else:
        cause, action = _curve_words_japanese(motion.curve.curves, thresholds, draw)
    return f"{cause}ので、{action}ながら{speed}。"


def _curve_words_japanese(
    curves: tuple[CurveSegment, ...], thresholds: CurveThresholds, draw: random.Random
) -> tuple[str, str]:
    first, other, grade, ahead = _bends(curves, thresholds)
    side = _SIDE_JA[first.direction]
    sides = side if other is None else f"{side}、続いて{_SIDE_JA[other]}"
    action = draw.choice(_CURVE_ACTIONS_JA).format(side=side)
    place = "この先" if ahead else "ここで"
    causes = [f"{road}が{place}{_ADVERB_JA[grade]}{sides}に曲がる" for road in ("車線", "道路")]
    if other is None:
        causes.append(f"{place}{_ADJECTIVE_JA[grade]}{side}カーブ{'がある' if ahead else 'が始まる'}")
    else:
        action = f"{sides}に操舵し"
    return draw.choice(causes), action
