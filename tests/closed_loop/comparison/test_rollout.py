"""Closed loops in one process: timing of plans, histories, events, several karts, same seed same drive."""

from collections.abc import Sequence

import numpy as np
import pytest

from closed_loop.comparison.deviation import measure
from closed_loop.comparison.reasoning import check_plans
from closed_loop.comparison.rollout import Rollout, RolloutConfig, drive_many
from closed_loop.control.driver import DriverConfig
from closed_loop.control.faults import Faults
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig, speed_profile
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego, to_map
from finetune.policy import Observation, Plan
from tests.helpers.rollouts import drive

SMALL = (96, 54)


def straight_plan(speed_mps: float) -> np.ndarray:
    ahead = speed_mps * 0.1 * np.arange(1, 65)
    return np.stack([ahead, np.zeros(64), np.zeros(64)], axis=1)


class Straight:
    """Thinks nothing and drives straight on."""

    cameras = "mono"

    def __init__(self, speed_mps: float = 3.0) -> None:
        self.speed_mps, self.seen, self.batches = speed_mps, [], []

    def plan(self, observation: Observation) -> Plan:
        return self.plan_many([observation])[0]

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        self.seen += observations
        self.batches.append(len(observations))
        return [Plan(o.stamp_ns, straight_plan(self.speed_mps), "straight on", {"action": 1.0}) for o in observations]


class Knowing(Straight):
    """Plans along the centreline from where the kart is (one kart)."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.speed = world, speed_profile(world.course, ExpertConfig(max_speed_mps=4.0))

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        plans = super().plan_many(observations)
        course, station = self.world.course, self.world.station_m
        side, speed = self.world.lateral_m, self.world.speed_mps
        places = []
        for _ in range(64):
            speed = min(speed + 0.1, float(course.at(station, self.speed)))
            station, side = station + 0.1 * speed, 0.9 * side
            places.append(course.pose_at(station, side))
        return [Plan(plans[0].stamp_ns, to_ego(np.array(places), self.world.pose), "along the road")]


def test_a_plan_along_the_road_is_followed_over_a_lap() -> None:
    world = World(course_named("city"), 0)
    lap = drive(world, Knowing(world), RolloutConfig(start_lateral_m=0.8, image_px=SMALL))
    assert lap.finished and lap.end == "1 of 1 laps done" and not lap.events
    assert np.abs(lap.lateral_m[lap.t_s > 6.0]).max() < 0.35
    assert lap.laps == pytest.approx(1.0, abs=0.01)
    steps = np.diff([placed.plan.stamp_ns for placed in lap.plans])
    assert set(steps) == {200_000_000}
    late_s = [(placed.taken_ns - placed.plan.stamp_ns) * 1e-9 for placed in lap.plans]
    assert late_s == pytest.approx([0.15] * len(late_s), abs=0.026)  # the control tick after 150 ms
    assert np.diff(lap.t_s) == pytest.approx(0.05)
    assert lap.brakes == {"no plan yet": 1}


def test_latency_is_real() -> None:
    faults = Faults(latency_s=0.35)
    config = RolloutConfig(max_time_s=4.0, faults=faults, driver=DriverConfig(replan_s=0.3), image_px=SMALL)
    result = drive(course_named("city"), Straight(), config)
    age_s = result.plan_age_s[result.t_s > 1.0]
    assert 0.35 <= age_s.min() < 0.38 and age_s.max() < 0.35 + 0.4 + 0.03
    assert np.isnan(result.plan_age_s[result.t_s < 0.35]).all()


def test_plans_that_take_longer_than_they_may_age_are_waited_for_and_driven_slowly() -> None:
    """One plan is under way at a time: late by 1.2 s each, they are 2.4 s old when the next one comes."""
    world, driver = World(course_named("city"), 0), DriverConfig()
    faults, config = Faults(latency_s=1.2), driver.controller
    result = drive(
        world, Knowing(world), RolloutConfig(max_time_s=40.0, faults=faults, image_px=SMALL, start_s_m=180.0)
    )
    assert result.brakes == {"no plan yet": 1} and not result.events
    under_way = result.t_s > 15.0
    assert 2.3 < np.nanmax(result.plan_age_s) < 2.6 and driver.limits.plan_age_s < 2.3
    assert result.speed_mps[under_way].min() > 0.6 and result.speed_mps[under_way].max() < 1.15 * config.blind_m / 2.4
    assert np.abs(result.lateral_m[under_way]).max() < 0.2  # through the hairpin of 4 m
    # Of a policy that hangs it stops all the same.
    hanging = RolloutConfig(max_time_s=12.0, faults=Faults(latency_s=1.2, camera_fail_after_s=4.0), image_px=SMALL)
    assert drive(course_named("city"), Straight(), hanging).speed_mps[-1] == 0.0


def test_jitter_makes_plans_later_by_a_draw() -> None:
    faults = Faults(latency_s=0.2, jitter_s=0.3, fault_seed=3)
    config = RolloutConfig(max_time_s=8.0, faults=faults, image_px=SMALL)
    first, again = (drive(course_named("city"), Straight(), config) for _ in range(2))
    late_s = [(placed.taken_ns - placed.plan.stamp_ns) * 1e-9 for placed in first.plans]
    assert len(late_s) > 12 and 0.19 < min(late_s) < 0.3 and 0.4 < max(late_s) < 0.53
    assert [placed.taken_ns for placed in again.plans] == [placed.taken_ns for placed in first.plans]
    assert late_s == pytest.approx([faults.late_ns(p.plan.stamp_ns) * 1e-9 for p in first.plans], abs=0.031)
    assert Faults(latency_s=0.2, fault_seed=3).late_ns(10**9) == 200_000_000


def test_what_the_policy_is_shown_is_the_true_path() -> None:
    policy = Straight(4.0)
    result = drive(course_named("random:71"), policy, RolloutConfig(max_time_s=5.0, image_px=SMALL))
    first, later = policy.seen[0], next(o for o in policy.seen if o.stamp_ns == 4_000_000_000)
    # A standing kart is shown rolling: models that learned from moving ones see no reason to move off.
    assert first.stamp_ns == 0 and first.speed_mps == 1.5
    assert first.history[:, 0] == pytest.approx(0.15 * np.arange(-15, 1), abs=1e-9)
    placed = next(placed for placed in result.plans if placed.plan.stamp_ns == 4_000_000_000)
    driven = result.poses[np.searchsorted(result.t_s, 4.0 - 1e-6) - 2 * np.arange(15, -1, -1)]
    assert to_map(later.history, placed.pose_map) == pytest.approx(driven, abs=1e-9)
    assert later.frames["front"].shape == (1, SMALL[1], SMALL[0], 3)


def test_plans_by_wheels_alone_are_judged_where_the_kart_was() -> None:
    """Such a driver's frame begins where it started; the plans' places are the map's all the same."""
    world = World(course_named("city"), 0)
    config = RolloutConfig(laps=0.3, start_s_m=100.0, image_px=SMALL, rules="e2e", driver=DriverConfig())
    lap = drive(world, Knowing(world), config)
    assert lap.finished and len(lap.plans) > 50
    for placed in lap.plans[::10]:
        near = np.abs(lap.t_s - placed.plan.stamp_ns * 1e-9).argmin()
        assert placed.pose_map[:2] == pytest.approx(lap.poses[near, :2], abs=0.2)
        assert placed.poses_map[0, :2] == pytest.approx(lap.poses[near, :2], abs=1.0)
        assert placed.taken_ns - placed.plan.stamp_ns == pytest.approx(0.15e9, abs=0.03e9)
    measured = measure(lap.t_s, lap.poses, world.course)
    checks = check_plans(lap.plans, measured, world.course)
    same = [check.path_matches_lap for check in checks if check.path_matches_lap is not None]
    assert np.mean(same) > 0.9


def test_driving_straight_leaves_the_road_and_is_counted_and_reset() -> None:
    course = course_named("city")
    config = RolloutConfig(max_off_track=3, image_px=SMALL, start_s_m=20.0)
    result = drive(course, Straight(), config)
    assert result.end == "too often off the road" and not result.finished
    kinds = [event.what for event in result.events]
    assert kinds.count("off_track") == 3 and kinds[0] == "off_track" and "reset" in kinds
    at = int(np.searchsorted(result.t_s, result.events[0].t_s - 1e-6))
    assert result.beyond_edge_m[at] > 0.0 >= result.beyond_edge_m[at - 1]
    assert course.project(result.poses[at, :2]).lateral_m == pytest.approx(result.lateral_m[at], abs=0.02)
    for moment in result.resets_s:
        index = int(np.searchsorted(result.t_s, moment - 1e-9))
        assert abs(result.lateral_m[index]) < 0.2 < abs(result.lateral_m[index - 1])
        assert result.speed_mps[index] == 0.0
    assert (result.beyond_edge_m > 0).any()


def test_the_driver_starts_anew_after_a_reset() -> None:
    policy = Straight()
    result = drive(course_named("city"), policy, RolloutConfig(max_off_track=2, image_px=SMALL, start_s_m=20.0))
    back_s = next(event.t_s for event in result.events if event.what == "reset")
    after = next(o for o in policy.seen if o.stamp_ns > back_s * 1e9 + 1e6)
    assert np.abs(np.diff(after.history[:, 0])).max() < 0.2  # rolling slowly, no leap across the road
    ages = result.plan_age_s[(result.t_s > back_s + 0.05) & (result.t_s < back_s + 0.2)]
    assert np.isnan(ages).all() and result.brakes["no plan yet"] == 2


def test_a_kart_that_stands_is_reset_and_the_time_runs_out() -> None:
    config = RolloutConfig(max_time_s=12.0, stuck_s=4.0, image_px=SMALL)
    result = drive(course_named("city"), Straight(0.0), config)
    assert result.end == "12 s driven" and result.laps < 0.05
    assert result.events[0].what == "stuck"
    assert result.t_s[-1] == pytest.approx(12.0, abs=0.06)


def test_a_plan_without_numbers_is_noted_and_not_followed() -> None:
    class Broken(Straight):
        def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
            poses = np.full((64, 3), np.nan)
            return [Plan(o.stamp_ns, poses) for o in observations]

    result = drive(course_named("city"), Broken(), RolloutConfig(max_time_s=2.0, image_px=SMALL))
    assert {event.what for event in result.events} == {"bad_plan"} and not result.plans
    assert result.speed_mps[-1] < 0.1 and np.isfinite(result.poses).all()
    assert result.brakes["plan not sane"] == 1


def test_several_karts_share_one_forward_pass() -> None:
    courses = [course_named(name) for name in ("city", "city-mirror", "random:81")]
    together = Straight()
    configs = [RolloutConfig(max_time_s=2.0, image_px=SMALL, start_s_m=s) for s in (0.0, 0.0, 10.0)]
    shares: list[float] = []
    drives = drive_many([World(c, 3) for c in courses], together, configs, progress=shares.append)
    assert set(together.batches) == {3}
    assert shares and shares == sorted(shares)
    for course, config, batched in zip(courses, configs, drives, strict=True):
        alone = drive(World(course, 3), Straight(), config)
        assert np.array_equal(alone.poses, batched.poses)


def test_the_same_seed_gives_the_same_drive_and_the_same_pictures() -> None:
    policies = [Straight() for _ in range(3)]
    config = RolloutConfig(
        max_time_s=3.0,
        image_px=SMALL,
        faults=Faults(latency_s=0.15, drop_share=0.2, black_share=0.1, position_noise_m=0.02, yaw_noise_rad=0.01),
    )
    results = [
        drive(course_named("random:91"), policy, config, seed) for policy, seed in zip(policies, (1, 1, 2), strict=True)
    ]
    assert np.array_equal(results[0].poses, results[1].poses)
    frames = [[o.frames["front"] for o in policy.seen] for policy in policies]
    assert all(np.array_equal(a, b) for a, b in zip(frames[0], frames[1], strict=True))
    assert any((a != c).mean() > 0.3 for a, c in zip(frames[0], frames[2], strict=True))


def test_faults_reach_the_driver() -> None:
    def driven(faults: Faults) -> tuple[Rollout, list[Observation]]:
        policy = Straight()
        config = RolloutConfig(max_time_s=6.0, image_px=SMALL, faults=faults)
        return drive(course_named("city"), policy, config), policy.seen

    clean, seen = driven(Faults())
    assert len(seen) == 31 and all(o.frames["front"].any() for o in seen)
    silent, seen = driven(Faults(camera_fail_after_s=3.0))
    assert seen[-1].stamp_ns < 3_000_000_000 and silent.brakes["camera frame stale"] == 1
    assert silent.speed_mps[-1] == 0.0 < clean.speed_mps[-1]
    _, seen = driven(Faults(drop_share=0.5))
    assert 10 < len(seen) < 28
    dark, seen = driven(Faults(black_share=0.5))
    # Black pictures are refused before the policy sees them, and half of them make the kart stop.
    assert 5 < len(seen) < 28 and all(o.frames["front"].any() for o in seen)
    assert dark.brakes["camera picture unusable"] >= 1
    noisy, seen = driven(Faults(position_noise_m=0.05, yaw_noise_rad=0.02, speed_noise_mps=0.1))
    assert np.abs(seen[-1].history[:, 1]).max() > 0.02 and noisy.speed_mps[-1] > 2.0
    with pytest.raises(MonoError, match="drop_share"):
        Faults(drop_share=1.5)


def test_the_cameras_of_the_policy_are_rendered() -> None:
    policy = Straight()
    policy.cameras = "four"
    drive(course_named("city"), policy, RolloutConfig(max_time_s=0.9, image_px=SMALL))
    assert sorted(policy.seen[-1].frames) == ["cross_left", "cross_right", "front", "front_tele"]
    assert policy.seen[-1].frames["front_tele"].shape[0] == 4
    assert policy.seen[0].frames["front"].shape[0] == 1  # no frame is made up before the start
    left, right = (policy.seen[-1].frames[name][-1] for name in ("cross_left", "cross_right"))
    assert (left != right).mean() > 0.5


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(MonoError, match="latency_s"):
        Faults(latency_s=7.0)
    with pytest.raises(MonoError, match="jitter_s"):
        Faults(jitter_s=-0.1)
    with pytest.raises(ValueError, match="longer"):
        drive_many([World(course_named("city"))], Straight(), [RolloutConfig()] * 2)
