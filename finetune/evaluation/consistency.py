"""Reasoning against path: whether a plan does what its reasoning says, and whether the reasoning fits the road.

Pure numpy on top of the one claim parser and the one curvature labeller of ``collector``. Used on samples
(open loop) and on driven laps (closed loop).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.constants import STEP_S
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from collector.reasoning.claims import Claim
from collector.reasoning.consistency import AxisCheck, ClaimCheck, Motion, check_claim, measure_motion, parse_claim

# "Thinks curve, drives straight": the reasoning names the road's own direction, yet the planned heading after
# this time is less than this share of the heading the road (or the true future) asks for.
SYMPTOM_TIME_S = 2.0
SYMPTOM_SHARE = 1.0 / 3.0
SYMPTOM_DEFINITION = (
    "thinks curve, drives straight: where the true path turns by at least 0.2 rad within 2 s, the reasoning names its "
    "direction, but the planned heading change after 2 s is under a third of the true one"
)


@dataclass(frozen=True)
class ReasoningCheck:
    """One plan judged."""

    claim: Claim  # what the text claims
    agreement: ClaimCheck  # the claim against the plan's own motion
    true_direction: str  # direction of the true future over the reasoning window
    reasoning_right: bool | None  # the lateral claim names that direction (None without a claim)
    speed_reasoning_right: bool | None  # the claim about speed is true of the true future (None without a claim)
    symptom: bool | None  # thinks curve, drives straight (None where the true path hardly turns by then)


def check_reasoning(reasoning: str, plan: ArrayLike, truth: ArrayLike, dt_s: float = STEP_S) -> ReasoningCheck:
    """Judge one plan (64, 3) and its text by what was (or should be) driven from the same place, (64, 3)."""
    planned, true = np.asarray(plan, np.float64), np.asarray(truth, np.float64)
    claim = parse_claim(reasoning)
    motion: Motion = measure_motion(planned, dt_s)
    true_motion = measure_motion(true, dt_s)
    against_truth = check_claim(claim, true_motion)
    reasoning_right = _agrees(against_truth.lateral)
    symptom: bool | None = None
    index = min(len(planned), round(SYMPTOM_TIME_S / dt_s)) - 1
    asked = float(np.unwrap([0.0, *true[: index + 1, 2]])[-1])
    # A bend that begins later asks for no turn by then, and an S may have undone its own: neither can show it.
    if true_motion.lateral != "straight" and abs(asked) >= DEFAULT_THRESHOLDS.min_turn_rad:
        given = float(np.unwrap([0.0, *planned[: index + 1, 2]])[-1])
        too_straight = given * np.sign(asked) < SYMPTOM_SHARE * abs(asked)
        symptom = bool(reasoning_right and too_straight)
    return ReasoningCheck(
        claim,
        check_claim(claim, motion),
        true_motion.lateral,
        reasoning_right,
        _agrees(against_truth.longitudinal),
        symptom,
    )


def _agrees(verdict: AxisCheck) -> bool | None:
    return None if verdict == "no_claim" else verdict == "agree"


@dataclass(frozen=True)
class Consistency:
    """Rates over many plans, in words in :data:`RATES`; each stands beside the number it is a share of."""

    plans: int  # plans judged
    coverage: float
    consistent: float
    longitudinal_coverage: float
    longitudinal_consistent: float
    both_coverage: float
    both_consistent: float
    reasoning_right: float
    speed_reasoning_right: float
    curve_plans: int  # those on curves, of which `thinks_curve_drives_straight` is a share
    thinks_curve_drives_straight: float


# The rates of Consistency and what each is a share of, for tables.
RATES: dict[str, str] = {
    "coverage": "plans with a claim on direction",
    "consistent": "of these, path agrees on direction",
    "longitudinal_coverage": "plans with a claim on speed",
    "longitudinal_consistent": "of these, path agrees on speed",
    "both_coverage": "plans with claims on both",
    "both_consistent": "of these, path agrees on both",
    "reasoning_right": "direction claimed is the true one",
    "speed_reasoning_right": "speed claimed is the true one",
    "thinks_curve_drives_straight": "thinks curve, drives straight",
}


def answers(check: ReasoningCheck) -> dict[str, bool | None]:
    """One plan's part in every rate of :data:`RATES`; None where it is not among those the rate is a share of."""
    lateral, longitudinal = _agrees(check.agreement.lateral), _agrees(check.agreement.longitudinal)
    both = lateral is not None and longitudinal is not None
    return {
        "coverage": lateral is not None,
        "consistent": lateral,
        "longitudinal_coverage": longitudinal is not None,
        "longitudinal_consistent": longitudinal,
        "both_coverage": both,
        "both_consistent": bool(lateral and longitudinal) if both else None,
        "reasoning_right": check.reasoning_right,
        "speed_reasoning_right": check.speed_reasoning_right,
        "thinks_curve_drives_straight": check.symptom,
    }


def summarise(checks: Iterable[ReasoningCheck]) -> Consistency:
    """Rates of many checks; a rate over nothing is NaN, never 1."""
    all_answers = [answers(check) for check in checks]
    return Consistency(
        plans=len(all_answers),
        curve_plans=sum(row["thinks_curve_drives_straight"] is not None for row in all_answers),
        **{rate: mean_of([given for row in all_answers if (given := row[rate]) is not None]) for rate in RATES},
    )


def mean_of(values: ArrayLike) -> float:
    """The mean; NaN over nothing."""
    array = np.asarray(values, np.float64)
    return float(array.mean()) if array.size else float("nan")
