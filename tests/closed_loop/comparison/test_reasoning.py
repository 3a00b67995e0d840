"""Reasoning, path and lap: oracle drivers whose agreement is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from closed_loop.comparison.deviation import measure
from closed_loop.comparison.reasoning import LapCheck, check_plans, pool, road_ahead, summarise_checks
from closed_loop.control.driver import PlacedPlan
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from collector.geometry.poses import to_map
from collector.reasoning.consistency import measure_motion
from collector.reasoning.writing import write_reasoning
from finetune.policy import Plan

SPEED_MPS = 4.0


def lap(course: Course) -> tuple[np.ndarray, np.ndarray]:
    """Times and poses of a lap on the centreline, 20 Hz."""
    t_s = np.arange(0.0, course.length_m / SPEED_MPS, 0.05)
    return t_s, course.pose_at(SPEED_MPS * t_s)


def placed(stamp_s: float, pose_map: np.ndarray, poses: np.ndarray, reasoning: str) -> PlacedPlan:
    return PlacedPlan(Plan(round(stamp_s * 1e9), poses, reasoning), pose_map, to_map(poses, pose_map), 0)


def judged(
    plans: list[PlacedPlan],
    t_s: np.ndarray,
    poses: np.ndarray,
    road: Course,
    resets_s: Sequence[float] = (),
    off_track: np.ndarray | None = None,
) -> list[LapCheck]:
    deviation = measure(t_s, poses, road, resets_s=resets_s)
    return check_plans(plans, deviation if off_track is None else replace(deviation, off_track=off_track), road)


def moments(course: Course, text: str | None = None, bend: float = 1.0, every_s: float = 1.0) -> list[PlacedPlan]:
    """Plans that follow the road (or a straightened one), with the true reasoning or a given one."""
    found = []
    for index, stamp_s in enumerate(np.arange(0.5, course.length_m / SPEED_MPS - 4.0, every_s)):
        pose = course.pose_at(SPEED_MPS * stamp_s)
        straight = np.stack([SPEED_MPS * 0.1 * np.arange(1, 65), np.zeros(64), np.zeros(64)], axis=1)
        true = road_ahead(course, pose, straight, SPEED_MPS * stamp_s)
        yaw = bend * true[:, 2]
        middle = 0.5 * (yaw + np.concatenate([[0.0], yaw[:-1]]))
        step = SPEED_MPS * 0.1
        plan = np.stack([np.cumsum(step * np.cos(middle)), np.cumsum(step * np.sin(middle)), yaw], axis=1)
        reasoning = write_reasoning(measure_motion(true), index) if text is None else text
        found.append(placed(float(stamp_s), pose, plan, reasoning))
    return found


@pytest.fixture(scope="module")
def city() -> Course:
    return course_named("city")


def test_a_driver_that_does_what_it_says_is_consistent(city: Course) -> None:
    t_s, poses = lap(city)
    row = summarise_checks(judged(moments(city), t_s, poses, city))
    assert row is not None
    assert row["plans"] == row["lap_plans"] > 80
    assert row["coverage"] == pytest.approx(1.0)
    assert row["consistent"] > 0.95
    assert row["path_matches_lap"] > 0.95
    assert row["reasoning_path_lap"] > 0.95
    assert row["reasoning_right"] > 0.95
    assert row["thinks_curve_drives_straight"] == 0.0


def test_thinks_curve_drives_straight_is_counted_where_the_road_turns(city: Course) -> None:
    t_s, poses = lap(city)
    row = summarise_checks(judged(moments(city, bend=0.1), t_s, poses, city))
    assert row is not None
    assert row["thinks_curve_drives_straight"] > 0.9
    assert 0.3 * row["plans"] < row["curve_plans"] < row["plans"]
    assert row["consistent"] < 0.6
    assert row["path_matches_lap"] < 0.6  # planned straight, driven round the bend
    assert row["reasoning_matches_lap"] > 0.95
    assert row["reasoning_path_lap"] <= row["consistent"] + 0.02


def test_a_road_that_does_not_turn_within_two_seconds_shows_no_symptom(city: Course) -> None:
    """A bend that begins after 2 s asks for no heading change before: a straight start of the plan is right."""
    t_s, poses = lap(city)
    far = 32.0 - 9.0  # curve 1 begins at 32 m: 9 m ahead, 2.25 s
    stamp_s = far / SPEED_MPS
    straight = np.stack([SPEED_MPS * 0.1 * np.arange(1, 65), np.zeros(64), np.zeros(64)], axis=1)
    plan = placed(stamp_s, city.pose_at(far), straight, "The lane bends right ahead, so steer right.")
    (check,) = judged([plan], t_s, poses, city)
    assert check.reasoning.true_direction == "right"
    assert check.reasoning.symptom is None


def test_no_claim_is_no_agreement(city: Course) -> None:
    t_s, poses = lap(city)
    row = summarise_checks(judged(moments(city, text="Mind the kerb."), t_s, poses, city))
    assert row is not None
    assert row["coverage"] == 0.0
    assert row["consistent"] is None
    assert row["reasoning_path_lap"] is None
    assert row["lap_claims"] == 0
    assert row["path_matches_lap"] > 0.95
    assert summarise_checks([]) is None


def test_wrong_side_reasonings_disagree_with_path_and_lap(city: Course) -> None:
    t_s, poses = lap(city)
    row = summarise_checks(judged(moments(city, text="The lane bends left, so steer left."), t_s, poses, city))
    assert row is not None
    assert row["reasoning_right"] == pytest.approx(row["consistent"], abs=0.05)
    assert 0.15 < row["consistent"] < 0.55  # right on the left bends, and only there


def test_windows_across_a_recovery_and_plans_off_the_road_do_not_count(city: Course) -> None:
    t_s, poses = lap(city)
    plans = moments(city)
    all_checks = judged(plans, t_s, poses, city)
    cut = judged(plans, t_s, poses, city, resets_s=[20.0])
    assert sum(check.path_matches_lap is None for check in cut) == 3  # t0 of 17.5, 18.5 and 19.5 s
    on_road = ~((t_s > 10.0) & (t_s < 20.0))
    kept = judged(plans, t_s, poses, city, off_track=~on_road)
    assert len(kept) == len(all_checks) - 10
    late = [placed(float(t_s[-1]) - 1.0, poses[-21], plans[0].plan.poses, "")]
    assert judged(late, t_s, poses, city)[0].path_matches_lap is None


def test_pooling_equals_judging_all_plans_together(city: Course) -> None:
    t_s, poses = lap(city)
    parts = [
        judged(moments(city, bend=0.1, every_s=1.0), t_s, poses, city),
        judged(moments(city, text="Mind the kerb.", every_s=3.0), t_s, poses, city),
        judged(moments(city, every_s=2.0), t_s, poses, city, resets_s=[30.0]),
    ]
    together = summarise_checks([check for part in parts for check in part])
    pooled = pool([summarise_checks(part) for part in parts] + [None])
    assert pooled == pytest.approx(together)
    assert pool([None]) is None
