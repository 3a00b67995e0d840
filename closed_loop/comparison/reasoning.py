"""Reasoning, path and lap: what the reasoning claimed, what was planned, and what the kart then drove.

Every plan of a drive is judged by the one parser, labeller and judge of :mod:`collector`, against two truths: the
road that lay ahead (walked at the plan's own pace, so that only the steering is compared) and the three seconds
that were really driven. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closed_loop.comparison.deviation import Deviation
from closed_loop.control.driver import PlacedPlan
from closed_loop.course.course import Course
from collector.geometry.constants import NS_PER_S
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from collector.geometry.poses import FloatArray, interpolate_poses, to_ego, to_map
from collector.reasoning.consistency import check_claim, measure_motion
from finetune.evaluation.consistency import SYMPTOM_DEFINITION, ReasoningCheck, check_reasoning, summarise
from finetune.policy import STEP_S, Plan

DEFINITIONS = (
    "Coverage: share of plans whose text claims a direction; the others count nowhere as consistent. "
    "Reasoning and path: among those, the plan's first 3 s turn the way the text says. Path and lap: the 3 s then "
    "driven turn the way the plan did. Reasoning, path and lap: all three the same. "
    + SYMPTOM_DEFINITION[0].upper()
    + SYMPTOM_DEFINITION[1:]
    + " (true: the road's own, over the distance the plan covers)."
)


@dataclass(frozen=True)
class LapCheck:
    """One plan judged against the road and against what was driven."""

    reasoning: ReasoningCheck  # the text against the plan, with the road as the truth
    # the driven 3 s turn the way the plan did; None where they were not driven (the drive ended, or the kart was placed
    # on the line again)
    path_matches_lap: bool | None
    reasoning_matches_lap: bool | None  # the driven 3 s turn the way the text claims; None without a claim or those 3 s


def road_ahead(road: Course, pose_map: ArrayLike, plan: ArrayLike, hint_s_m: float | None = None) -> FloatArray:
    """The road walked at a plan's pace: poses (64, 3) in the frame of the road beside the kart.

    The centreline is followed from the kart's pose (3,), near station ``hint_s_m``; of the plan (64, 3) only the
    distances it covers are used.
    """
    steps_m = np.linalg.norm(np.diff(np.asarray(plan, np.float64)[:, :2], axis=0, prepend=np.zeros((1, 2))), axis=1)
    station_m = float(road.project(np.asarray(pose_map, np.float64)[:2], hint_s_m).s_m)
    return to_ego(road.pose_at(station_m + np.cumsum(steps_m)), road.pose_at(station_m))


def place_plan(plan: Plan, stamps_ns: NDArray[np.int64], poses: FloatArray) -> PlacedPlan:
    """A plan from where the vehicle really was at its stamp: poses (N, 3) in the map at rising stamps (N,) around it.

    By the rules of the end-to-end class a driver knows its place in a frame of its own only.
    """
    pose_map = interpolate_poses(stamps_ns, poses, np.clip([plan.stamp_ns], stamps_ns[0], stamps_ns[-1]))[0]
    return PlacedPlan(plan, pose_map, to_map(plan.poses, pose_map), plan.stamp_ns)


def check_plans(plans: Iterable[PlacedPlan], deviation: Deviation, road: Course) -> list[LapCheck]:
    """Judge the plans of a drive, stamped on its clock; no 3 s window reaches across a reset.

    Plans made off the road are left out: they say nothing about the driver any more.
    """
    keep = np.append(np.diff(deviation.t_s) > 0.0, True)  # two samples at the moment of a reset: the later one counts
    times, places, good = deviation.t_s[keep], deviation.poses[keep], ~deviation.off_track[keep]
    stamps_ns = np.round(times * NS_PER_S).astype(np.int64)
    steps_s = STEP_S * np.arange(1, round(DEFAULT_THRESHOLDS.window_s / STEP_S) + 1)
    checks = []
    for placed in plans:
        stamp_s, plan = placed.plan.stamp_ns / NS_PER_S, placed.plan
        if not good[min(int(np.searchsorted(times, stamp_s - 1e-6)), len(times) - 1)]:
            continue
        reasoning = check_reasoning(plan.reasoning, plan.poses, road_ahead(road, placed.pose_map, plan.poses))
        query_ns = np.round((stamp_s + steps_s) * NS_PER_S).astype(np.int64)
        cut = any(stamp_s < reset <= stamp_s + steps_s[-1] for reset in deviation.resets_s)
        if cut or query_ns[-1] > stamps_ns[-1] or query_ns[0] < stamps_ns[0]:
            checks.append(LapCheck(reasoning, None, None))
            continue
        driven = measure_motion(to_ego(interpolate_poses(stamps_ns, places, query_ns), placed.pose_map))
        agreement = check_claim(reasoning.claim, driven).lateral
        checks.append(
            LapCheck(
                reasoning,
                measure_motion(plan.poses).lateral == driven.lateral,
                None if agreement == "no_claim" else agreement == "agree",
            )
        )
    return checks


def summarise_checks(checks: Sequence[LapCheck]) -> dict[str, Any] | None:
    """Rates of many plans, None without any; a rate over nothing is None.

    The keys of :class:`finetune.evaluation.consistency.Consistency`, and ``lap_plans`` (plans whose 3 s were driven),
    ``lap_claims`` (those with a claim), ``path_matches_lap`` (share of the former), ``reasoning_matches_lap`` and
    ``reasoning_path_lap`` (shares of the latter).
    """
    if not checks:
        return None

    def share(values: list[bool]) -> float | None:
        return float(np.mean(values)) if values else None

    driven = [check for check in checks if check.path_matches_lap is not None]
    claimed = [check for check in driven if check.reasoning_matches_lap is not None]
    rates = asdict(summarise(check.reasoning for check in checks))
    rates = {key: None if np.isnan(value) else value for key, value in rates.items()}
    return {
        **rates,
        "lap_plans": len(driven),
        "lap_claims": len(claimed),
        "path_matches_lap": share([bool(check.path_matches_lap) for check in driven]),
        "reasoning_matches_lap": share([bool(check.reasoning_matches_lap) for check in claimed]),
        "reasoning_path_lap": share(
            [bool(check.reasoning_matches_lap) and check.reasoning.agreement.lateral == "agree" for check in claimed]
        ),
    }


# What each rate is a share of: a count, and the share of that count where it is not the whole.
_SHARE_OF = {
    "coverage": ("plans", ""),
    "longitudinal_coverage": ("plans", ""),
    "both_coverage": ("plans", ""),
    "consistent": ("plans", "coverage"),
    "reasoning_right": ("plans", "coverage"),
    "longitudinal_consistent": ("plans", "longitudinal_coverage"),
    "speed_reasoning_right": ("plans", "longitudinal_coverage"),
    "both_consistent": ("plans", "both_coverage"),
    "thinks_curve_drives_straight": ("curve_plans", ""),
    "path_matches_lap": ("lap_plans", ""),
    "reasoning_matches_lap": ("lap_claims", ""),
    "reasoning_path_lap": ("lap_claims", ""),
}


def pool(rows: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Summaries of several drives as one, each rate weighted by the number it is a share of; None without any."""
    given = [row for row in rows if row]
    if not given:
        return None
    pooled: dict[str, Any] = {}
    for key in given[0]:
        if key not in _SHARE_OF:
            pooled[key] = sum(row[key] for row in given)
            continue
        count, share = _SHARE_OF[key]
        # A run that an earlier version finished lacks the rates that are newer.
        known = [row for row in given if row.get(key) is not None]
        sizes = [float(row[count]) * ((row[share] or 0.0) if share else 1.0) for row in known]
        pooled[key] = float(np.average([row[key] for row in known], weights=sizes)) if sum(sizes) > 0.0 else None
    return pooled
