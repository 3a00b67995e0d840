"""What a reasoning claims, what a path really does, and whether the two are consistent.

The reader of claims is deterministic, knows negation ("do not turn left"), leaves out what is said of other road users
("the car ahead turns left"), and answers ``none`` where nothing is claimed: no claim is never agreement. It reads
English and Japanese, telling them apart by their letters; each language has its own module
(:mod:`collector.reasoning.english`, :mod:`collector.reasoning.japanese`), and what counts first is decided here for
both. It must read every sentence of :mod:`collector.reasoning.writing` exactly, and does its best on a driving model's
own words.

The same functions curate datasets, score a model's consistency and judge what the kart drove.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from collector.common.errors import MonoError
from collector.geometry.constants import STEP_S
from collector.geometry.curvature import DEFAULT_THRESHOLDS, CurveLabel, CurveThresholds, Direction, label_path
from collector.geometry.road import LocalRoad
from collector.reasoning import english, japanese
from collector.reasoning.claims import Claim, Language, LongitudinalClaim
from collector.reasoning.places import Place, measure_place

SpeedChange = Literal["accelerate", "decelerate", "keep", "stop"]
# A claim is unjudged where nothing is known to hold it against.
AxisCheck = Literal["agree", "contradict", "no_claim", "unjudged"]


@dataclass(frozen=True)
class Motion:
    """What a path does within the window of a reasoning: the direction of its first curve, its change of speed.

    Where the road is known, ``curve`` and ``lateral`` are those of the lane as far as the path gets: a kart that moves
    to its edge turns, and the lane does not. ``turns`` is then what the path itself does.
    """

    lateral: Direction
    longitudinal: SpeedChange
    curve: CurveLabel
    speed_start_mps: float
    speed_end_mps: float
    place: Place | None = None  # where on the road, None where that is not known
    turns: Direction | None = None  # of the path, where ``lateral`` is the lane's

    @property
    def of_path(self) -> Motion:
        """The same with the path's own direction: what a plan is judged by, which may leave the lane."""
        return self if self.turns is None else replace(self, lateral=self.turns, turns=None)


@dataclass(frozen=True)
class ClaimCheck:
    """The comparison of a claim and a motion, axis by axis.

    ``keep`` is whether a sample with this text may train: nothing contradicts, a curve is not passed over in silence,
    and a place on the road is claimed only where the road is known. ``no_claim`` is never agreement: count it apart, as
    coverage; nor is ``unjudged``. ``reason`` is a sentence for the audit.
    """

    lateral: AxisCheck
    longitudinal: AxisCheck
    keep: bool
    reason: str
    position: AxisCheck = "no_claim"
    pace: AxisCheck = "no_claim"


def measure_motion(
    future: ArrayLike,
    dt_s: float = STEP_S,
    thresholds: CurveThresholds = DEFAULT_THRESHOLDS,
    speed_mps: float | None = None,
    road: LocalRoad | None = None,
) -> Motion:
    """Measure the first ``window_s`` seconds of a future, and of the road, where that is known, how it bends there.

    ``future``: (N, 3) ego poses at dt_s, 2 dt_s, ... (64 for a plan); the origin is put before them. (N, 2) works.
    ``speed_mps`` is the true speed at t0 where known; else it is the path's own mean over its first
    ``speed_average_s``.

    Raises:
        MonoError: a wrong shape, too few poses for a speed, or non-finite numbers.
    """
    poses = np.asarray(future, np.float64)
    if poses.ndim != 2 or poses.shape[1] not in (2, 3) or len(poses) < 2:
        raise MonoError(f"a future of shape {poses.shape}", "(N, 3) ego poses, N at least 2", "pass one future")
    steps = min(len(poses), max(2, round(thresholds.window_s / dt_s)))
    xy = np.concatenate([np.zeros((1, 2)), poses[:steps, :2]])
    walked = None if road is None else road.walked(xy)
    own = label_path(xy, thresholds)
    curve = own if walked is None else label_path(walked, thresholds)
    speed = np.linalg.norm(np.diff(xy, axis=0), axis=1) / dt_s
    averaged = min(max(1, round(thresholds.speed_average_s / dt_s)), len(speed))
    start_mps = float(np.mean(speed[:averaged])) if speed_mps is None else float(speed_mps)
    end_mps = float(np.mean(speed[-averaged:]))
    change_mps = end_mps - start_mps
    longitudinal: SpeedChange = "keep"
    if end_mps < thresholds.stop_speed_mps:
        longitudinal = "stop"
    elif change_mps >= thresholds.speed_change_mps:
        longitudinal = "accelerate"
    elif change_mps <= -thresholds.speed_change_mps:
        longitudinal = "decelerate"
    place = None if road is None else measure_place(road, poses, thresholds.window_s, dt_s)
    turns = None if walked is None else own.direction
    return Motion(curve.direction, longitudinal, curve, start_mps, end_mps, place, turns)


def check_claim(claim: Claim, motion: Motion) -> ClaimCheck:
    """Compare a claim with a motion on every axis.

    A direction is said truly of the lane and of the path, where both are known. Slowing down is said truly of a kart
    that comes to a stop, and of a sideways move both that it goes to the left and that it ends there; apart from that
    the words must be the same.
    """
    position, pace = _check_place(claim, motion.place)
    lateral: AxisCheck = "no_claim"
    if claim.lateral != "none":
        moves = position == "agree" and claim.position == claim.lateral
        lateral = "agree" if claim.lateral in (motion.lateral, motion.turns) or moves else "contradict"
    longitudinal: AxisCheck = "no_claim"
    if claim.longitudinal != "none":
        true_words = {motion.longitudinal, "decelerate"} if motion.longitudinal == "stop" else {motion.longitudinal}
        longitudinal = "agree" if claim.longitudinal in true_words else "contradict"
    reasons = []
    if lateral == "contradict":
        reasons.append(
            f"the text claims {claim.lateral}, the {'path' if motion.turns is None else 'lane'} goes {motion.lateral} "
            f"(turn {motion.curve.turn_rad:+.2f} rad, curvature up to "
            f"{motion.curve.max_abs_curvature_1pm:.3f} 1/m)"
        )
    if lateral == "no_claim" and motion.lateral != "straight":
        reasons.append(f"the text names no direction, the path turns {motion.lateral}")
    if longitudinal == "contradict":
        reasons.append(
            f"the text claims {claim.longitudinal}, the speed goes from {motion.speed_start_mps:.1f} to "
            f"{motion.speed_end_mps:.1f} m/s ({motion.longitudinal})"
        )
    reasons += _place_reasons(claim, motion.place, position, pace)
    reason = "; ".join(reasons) or "text and path agree"
    return ClaimCheck(lateral, longitudinal, not reasons, reason, position, pace)


def _check_place(claim: Claim, place: Place | None) -> tuple[AxisCheck, AxisCheck]:
    position: AxisCheck = "no_claim" if claim.position == "none" else "unjudged"
    pace: AxisCheck = "no_claim" if claim.pace == "none" else "unjudged"
    if place is not None and position == "unjudged":
        position = "agree" if place.agrees(claim.position) else "contradict"
    if place is not None and pace == "unjudged" and (driven := place.pace()) is not None:
        pace = "agree" if claim.pace == driven else "contradict"
    return position, pace


def _place_reasons(claim: Claim, place: Place | None, position: AxisCheck, pace: AxisCheck) -> list[str]:
    reasons = []
    if position == "unjudged":
        reasons.append(f"the text claims {claim.position} of the road, and nothing tells where its middle is there")
    if place is not None and position == "contradict":
        reasons.append(
            f"the text claims {claim.position} of the road, the path runs {place.offset_m:+.2f} m from its middle "
            f"({place.position()}; {place.start_m:+.2f} m at first, between {place.most_right_m:+.2f} and "
            f"{place.most_left_m:+.2f} m on the way)"
        )
    if place is not None and pace == "contradict":
        reasons.append(
            f"the text claims a {claim.pace} pace, the path has {place.usual_share or 0.0:.0%} of the usual speed "
            f"({place.pace()})"
        )
    return reasons


_JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
_LATIN = re.compile("[A-Za-z]")


def parse_claim(text: str) -> Claim:
    """Read the claims of an English or Japanese reasoning; anything unreadable claims nothing.

    What the driver does ("steer right") outranks what the road does ("the lane bends right"); among equals the first
    one counts, so an S-bend claims its first direction. A stop outranks the slowing down that leads to it. What is said
    after a "but" takes back what was said before it of the same kind: "keep to the left edge, but the road ends there,
    so stay in the middle" claims the middle.
    """
    room = japanese if language_of(text) == "ja" else english
    said, corrected = room.read(text)
    sides = (*corrected.ours, *corrected.roads) or (*said.ours, *said.roads)
    speeds = corrected.speeds or said.speeds
    speed: LongitudinalClaim = speeds[0] if speeds else "none"
    # "Accelerate, then stop at the line" speaks of now first; "slow down and stop" of one manoeuvre.
    if "stop" in speeds and speed != "accelerate":
        speed = "stop"
    positions, paces = corrected.positions or said.positions, corrected.paces or said.paces
    return Claim((*sides, "none")[0], speed, (*positions, "none")[0], (*paces, "none")[0])


def language_of(text: str) -> Language:
    """The language most of a text is written in; a Japanese letter says about as much as two Latin ones."""
    return "ja" if 2 * len(_JAPANESE.findall(text)) > len(_LATIN.findall(text)) else "en"
