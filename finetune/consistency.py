"""Thought against path: whether a plan does what its reasoning says, and whether the thought fits the road.

Pure numpy on top of the one claim parser and the one curvature labeller of ``collector``. Used on samples
(open loop) and on driven laps (closed loop).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from collector.agreement import Agreement, Motion, judge, measure_motion
from collector.claims import Claim, parse_claim
from collector.curvature import DEFAULT_THRESHOLDS

# "Thinks curve, drives straight": the thought names the road's own direction, yet the planned heading after
# this time is less than this share of the heading the road (or the true future) asks for.
SYMPTOM_TIME_S = 2.0
SYMPTOM_SHARE = 1.0 / 3.0
SYMPTOM_DEFINITION = (
    "thinks curve, drives straight: where the true path turns by at least 0.2 rad within 2 s, the thought names its "
    "direction, but the planned heading change after 2 s is under a third of the true one"
)


@dataclass(frozen=True)
class ThoughtCheck:
    """One plan judged.

    Attributes:
        claim: what the text claims.
        agreement: the claim against the plan's own motion.
        true_direction: direction of the true future over the thought window.
        thought_right: the lateral claim names that direction (None without a claim).
        symptom: thinks curve, drives straight (None where the true path hardly turns by then: it cannot occur).
    """

    claim: Claim
    agreement: Agreement
    true_direction: str
    thought_right: bool | None
    symptom: bool | None


def check_thought(reasoning: str, plan: ArrayLike, truth: ArrayLike, dt_s: float = 0.1) -> ThoughtCheck:
    """Judge one plan.

    Args:
        reasoning: the generated text.
        plan: (64, 3) planned ego poses.
        truth: (64, 3) what was (or should be) driven from the same place.
        dt_s: spacing of both.
    """
    planned, true = np.asarray(plan, np.float64), np.asarray(truth, np.float64)
    claim = parse_claim(reasoning)
    motion: Motion = measure_motion(planned, dt_s)
    true_motion = measure_motion(true, dt_s)
    thought_right = None if claim.lateral == "none" else claim.lateral == true_motion.lateral
    symptom: bool | None = None
    index = min(len(planned), round(SYMPTOM_TIME_S / dt_s)) - 1
    asked = float(np.unwrap([0.0, *true[: index + 1, 2]])[-1])
    # A bend that begins later asks for no turn by then, and an S may have undone its own: neither can show it.
    if true_motion.lateral != "straight" and abs(asked) >= DEFAULT_THRESHOLDS.min_turn_rad:
        given = float(np.unwrap([0.0, *planned[: index + 1, 2]])[-1])
        too_straight = given * np.sign(asked) < SYMPTOM_SHARE * abs(asked)
        symptom = bool(thought_right and too_straight)
    return ThoughtCheck(claim, judge(claim, motion), true_motion.lateral, thought_right, symptom)


@dataclass(frozen=True)
class Consistency:
    """Rates over many plans; each rate stands beside the number it is a share of.

    Attributes:
        plans: plans judged.
        coverage: share of plans whose text makes a lateral claim.
        consistent: among those, the share whose own path agrees laterally.
        longitudinal_coverage, longitudinal_consistent: the same for speed.
        thought_right: among plans with a lateral claim, the share naming the true direction.
        curve_plans: plans on curves.
        thinks_curve_drives_straight: share of curve plans showing the symptom.
    """

    plans: int
    coverage: float
    consistent: float
    longitudinal_coverage: float
    longitudinal_consistent: float
    thought_right: float
    curve_plans: int
    thinks_curve_drives_straight: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def summarise(checks: Iterable[ThoughtCheck]) -> Consistency:
    """Rates of many checks; a rate over nothing is NaN, never 1."""
    all_checks = list(checks)

    def share(values: list[bool]) -> float:
        return float(np.mean(values)) if values else float("nan")

    lateral = [check.agreement.lateral for check in all_checks]
    longitudinal = [check.agreement.longitudinal for check in all_checks]
    symptoms = [check.symptom for check in all_checks if check.symptom is not None]
    return Consistency(
        plans=len(all_checks),
        coverage=share([verdict != "no_claim" for verdict in lateral]),
        consistent=share([verdict == "agree" for verdict in lateral if verdict != "no_claim"]),
        longitudinal_coverage=share([verdict != "no_claim" for verdict in longitudinal]),
        longitudinal_consistent=share([verdict == "agree" for verdict in longitudinal if verdict != "no_claim"]),
        thought_right=share([check.thought_right for check in all_checks if check.thought_right is not None]),
        curve_plans=len(symptoms),
        thinks_curve_drives_straight=share(symptoms),
    )
