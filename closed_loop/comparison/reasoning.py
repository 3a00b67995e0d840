"""Reasoning, path and lap: what the reasoning claimed, what was planned, and what the kart then drove.

Every plan of a drive is judged by the one parser, labeller and judge of :mod:`collector`, against two truths: the
road that lay ahead (walked at the plan's own pace, so that only the steering is compared) and the three seconds
that were really driven. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closed_loop.course.course import Course
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from collector.geometry.poses import interpolate_poses, to_ego
from collector.reasoning.consistency import check_claim, measure_motion
from finetune.evaluation.consistency import SYMPTOM_DEFINITION, ReasoningCheck, check_reasoning, summarise
from finetune.policy import STEP_S

FloatArray = NDArray[np.float64]

DEFINITIONS = (
    "Coverage: share of plans whose text claims a direction; the others count nowhere as consistent. "
    "Reasoning and path: among those, the plan's first 3 s turn the way the text says. Path and lap: the 3 s then "
    "driven turn the way the plan did. Reasoning, path and lap: all three the same. "
    + SYMPTOM_DEFINITION[0].upper()
    + SYMPTOM_DEFINITION[1:]
    + " (true: the road's own, over the distance the plan covers)."
)


@dataclass(frozen=True, eq=False)
class PlannedMoment:
    """A plan as it was made during a drive.

    Attributes:
        stamp_s: t0.
        pose_map: (3,) where the kart was at t0.
        poses: (64, 3) the plan in its ego frame.
        reasoning: its text.
    """

    stamp_s: float
    pose_map: FloatArray
    poses: FloatArray
    reasoning: str


@dataclass(frozen=True)
class LapCheck:
    """One plan judged against the road and against what was driven.

    Attributes:
        reasoning: the text against the plan, with the road as the truth.
        path_matches_lap: the driven 3 s turn the way the plan did; None where they were not driven (the drive
            ended, or the kart was put back).
        reasoning_matches_lap: the driven 3 s turn the way the text claims; None without a claim or those 3 s.
    """

    reasoning: ReasoningCheck
    path_matches_lap: bool | None
    reasoning_matches_lap: bool | None


def road_ahead(road: Course, pose_map: ArrayLike, plan: ArrayLike, hint_s_m: float | None = None) -> FloatArray:
    """The road walked at a plan's pace: poses (64, 3) in the frame of the road beside the kart.

    Args:
        road: its centreline is followed.
        pose_map: (3,) the kart.
        plan: (64, 3) ego poses; only the distances they cover are used.
        hint_s_m: station near which to look.
    """
    steps_m = np.linalg.norm(np.diff(np.asarray(plan, np.float64)[:, :2], axis=0, prepend=np.zeros((1, 2))), axis=1)
    station_m = float(road.project(np.asarray(pose_map, np.float64)[:2], hint_s_m).s_m)
    return to_ego(road.pose_at(station_m + np.cumsum(steps_m)), road.pose_at(station_m))


def check_plans(
    moments: Iterable[PlannedMoment],
    t_s: ArrayLike,
    poses: ArrayLike,
    road: Course,
    *,
    recovered_s: Sequence[float] = (),
    usable: NDArray[np.bool_] | None = None,
) -> list[LapCheck]:
    """Judge the plans of a drive.

    Args:
        moments: the plans.
        t_s, poses: (T,), (T, 3) what was driven.
        road: the course.
        recovered_s: times at which the kart was put back; no 3 s window reaches across one.
        usable: (T,) False where a plan says nothing about its driver (the kart is off the road already); plans
            made there are left out. None uses all.
    """
    times, places = np.asarray(t_s, np.float64), np.asarray(poses, np.float64)
    keep = np.append(np.diff(times) > 0.0, True)  # two samples at the moment of a recovery: the later one counts
    times, places = times[keep], places[keep]
    good = np.ones(len(times), bool) if usable is None else np.asarray(usable, bool)[keep]
    stamps_ns = np.round(times * 1e9).astype(np.int64)
    steps_s = STEP_S * np.arange(1, round(DEFAULT_THRESHOLDS.window_s / STEP_S) + 1)
    checks = []
    for moment in moments:
        if not good[min(int(np.searchsorted(times, moment.stamp_s - 1e-6)), len(times) - 1)]:
            continue
        reasoning = check_reasoning(moment.reasoning, moment.poses, road_ahead(road, moment.pose_map, moment.poses))
        query_ns = np.round((moment.stamp_s + steps_s) * 1e9).astype(np.int64)
        cut = any(moment.stamp_s < recovered <= moment.stamp_s + steps_s[-1] for recovered in recovered_s)
        if cut or query_ns[-1] > stamps_ns[-1] or query_ns[0] < stamps_ns[0]:
            checks.append(LapCheck(reasoning, None, None))
            continue
        driven = measure_motion(to_ego(interpolate_poses(stamps_ns, places, query_ns), moment.pose_map))
        verdict = check_claim(reasoning.claim, driven).lateral
        checks.append(
            LapCheck(
                reasoning,
                measure_motion(moment.poses).lateral == driven.lateral,
                None if verdict == "no_claim" else verdict == "agree",
            )
        )
    return checks


def summarise_checks(checks: Sequence[LapCheck]) -> dict[str, Any] | None:
    """Rates of many plans, None without any; a rate over nothing is None.

    Returns:
        the keys of :class:`finetune.evaluation.consistency.Consistency`, and ``lap_plans`` (plans whose 3 s were
        driven), ``lap_claims`` (those with a claim), ``path_matches_lap`` (share of the former),
        ``reasoning_matches_lap`` and ``reasoning_path_lap`` (shares of the latter).
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


def pool(rows: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Summaries of several drives as one, each rate weighted by the number it is a share of; None without any."""
    given = [row for row in rows if row]
    if not given:
        return None

    def size(row: dict[str, Any], rate: str) -> float:
        if rate in ("coverage", "longitudinal_coverage", "both_coverage"):
            return float(row["plans"])
        if rate in ("consistent", "reasoning_right"):
            return float(row["plans"] * (row["coverage"] or 0.0))
        if rate in ("longitudinal_consistent", "speed_reasoning_right"):
            return float(row["plans"] * (row["longitudinal_coverage"] or 0.0))
        if rate == "both_consistent":
            return float(row["plans"] * (row["both_coverage"] or 0.0))
        if rate == "thinks_curve_drives_straight":
            return float(row["curve_plans"])
        return float(row["lap_plans"] if rate == "path_matches_lap" else row["lap_claims"])

    pooled: dict[str, Any] = {}
    for key in given[0]:
        if key in ("plans", "curve_plans", "lap_plans", "lap_claims"):
            pooled[key] = sum(row[key] for row in given)
            continue
        # A run that an earlier version finished lacks the rates that are newer.
        known = [row for row in given if row.get(key) is not None]
        sizes, rates = [size(row, key) for row in known], [row[key] for row in known]
        pooled[key] = float(np.average(rates, weights=sizes)) if sum(sizes) > 0.0 else None
    return pooled
