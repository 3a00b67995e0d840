"""Thoughts written from geometry: one English sentence naming cause and action on both axes.

The grammar is small on purpose: a tiny model must learn its words, and :func:`collector.claims.parse_claim`
must read every sentence back to exactly the motion it was written from. Bends are graded (gentle, plain,
sharp) and placed (here or ahead); an S-bend names both directions in driving order.
"""

from __future__ import annotations

import random

from collector.agreement import Motion, SpeedChange
from collector.curvature import DEFAULT_THRESHOLDS, CurveSegment, CurveThresholds

_SPEED_WORDS: dict[SpeedChange, tuple[str, ...]] = {
    "accelerate": ("speed up", "accelerate"),
    "decelerate": ("slow down", "brake"),
    "keep": ("keep the speed", "hold the speed"),
    "stop": ("stop", "come to a stop"),
}
_STRAIGHT_CAUSES = ("The lane is straight", "The road ahead is straight", "The lane runs straight")
_STRAIGHT_ACTIONS = ("keep straight", "go straight on")
_CURVE_ACTIONS = (
    "steer {side} to keep the lane",
    "steer {side} to follow the lane",
    "turn {side} with the road",
)
_ADVERB = {"gentle": "gently ", "plain": "", "sharp": "sharply "}
_ADJECTIVE = {"gentle": "gentle ", "plain": "", "sharp": "sharp "}


def write_reasoning(motion: Motion, seed: int, thresholds: CurveThresholds = DEFAULT_THRESHOLDS) -> str:
    """Write the thought of a motion.

    Args:
        motion: what the path will do.
        seed: chooses among equivalent phrasings; the same motion and seed give the same text, and a mirrored
            motion gives the same text with left and right exchanged.
        thresholds: ``now_m`` and the two grades of sharpness.

    Returns:
        A sentence of at most 22 words, such as "The lane bends right ahead, so slow down and steer right to
        keep the lane."
    """
    draw = random.Random(seed)
    speed = draw.choice(_SPEED_WORDS[motion.longitudinal])
    if not motion.curve.curves:
        cause, action = draw.choice(_STRAIGHT_CAUSES), draw.choice(_STRAIGHT_ACTIONS)
    else:
        cause, action = _curve_words(motion.curve.curves, thresholds, draw)
    return f"{cause}, so {speed} and {action}."


def bend_grade(curve: CurveSegment, thresholds: CurveThresholds = DEFAULT_THRESHOLDS) -> str:
    """How tight a curve is, in the words of a thought: gentle, plain or sharp."""
    if curve.max_abs_curvature_1pm < thresholds.gentle_curvature_1pm:
        return "gentle"
    return "sharp" if curve.max_abs_curvature_1pm > thresholds.sharp_curvature_1pm else "plain"


def _curve_words(
    curves: tuple[CurveSegment, ...], thresholds: CurveThresholds, draw: random.Random
) -> tuple[str, str]:
    first = curves[0]
    grade = bend_grade(first, thresholds)
    ahead = first.start_m > thresholds.now_m
    other = next((curve.direction for curve in curves if curve.direction != first.direction), None)
    sides = first.direction if other is None else f"{first.direction} and then {other}"
    action = draw.choice(_CURVE_ACTIONS).format(side=first.direction)
    causes = [
        f"{road} bends {_ADVERB[grade]}{sides}{' ahead' if ahead else ' now'}"
        for road in ("The lane", "The road")
    ]
    if other is None:
        place = "is ahead" if ahead else "begins now"
        causes.append(f"A {_ADJECTIVE[grade]}{first.direction} bend {place}")
    else:
        action = f"steer {first.direction} and then {other}"
    return draw.choice(causes), action
