"""Closed loops in one process: timing of plans, histories, events, several karts, same seed same drive."""

import numpy as np
import pytest

from closed_loop.comparison.rollout import RolloutConfig, drive, drive_many
from closed_loop.control.controller import TrackingController
from closed_loop.control.kart import Command
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig, speed_profile
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego, to_map
from finetune.policy import Plan

SMALL = (96, 54)


def straight_plan(speed_mps: float) -> np.ndarray:
    ahead = speed_mps * 0.1 * np.arange(1, 65)
    return np.stack([ahead, np.zeros(64), np.zeros(64)], axis=1)


class Straight:
    """Thinks nothing and drives straight on."""

    cameras = "mono"

    def __init__(self, speed_mps: float = 3.0) -> None:
        self.speed_mps, self.seen, self.batches = speed_mps, [], []

    def plan(self, observation):
        return self.plan_many([observation])[0]

    def plan_many(self, observations):
        self.seen += observations
        self.batches.append(len(observations))
        return [Plan(o.stamp_ns, straight_plan(self.speed_mps), "straight on", {"action": 1.0}) for o in observations]


class Knowing(Straight):
    """Plans along the centreline from the pose that the rollout says it has (one kart)."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.speed = world, speed_profile(world.course, ExpertConfig(max_speed_mps=4.0))

    def plan_many(self, observations):
        plans = super().plan_many(observations)
        course, station = self.world.course, self.world.station_m
        side, speed = self.world.lateral_m, self.world.speed_mps
        places = []
        for _ in range(64):
            speed = min(speed + 0.1, float(course.at(station, self.speed)))
            station, side = station + 0.1 * speed, 0.9 * side
            places.append(course.pose_at(station, side))
        return [Plan(plans[0].stamp_ns, to_ego(np.array(places), self.world.pose), "along the road")]


def test_a_plan_along_the_road_is_followed_over_a_lap():
    world = World(course_named("city"), 0)
    lap = drive(world, Knowing(world), TrackingController(), RolloutConfig(start_lateral_m=0.8, image_px=SMALL))
    assert lap.finished and lap.end == "laps done" and not lap.events
    assert np.abs(lap.lateral_m[lap.t_s > 4.0]).max() < 0.35
    assert 1.0 <= lap.laps < 1.05
    steps = np.diff([plan.stamp_s for plan in lap.plans])
    assert steps == pytest.approx(0.2)
    late = [plan.usable_s - plan.stamp_s for plan in lap.plans]
    assert late[0] == 0.0 and late[1:] == pytest.approx([0.15] * (len(late) - 1))
    assert np.diff(lap.t_s) == pytest.approx(0.05)


def test_latency_is_real():
    class Watch:
        def __init__(self):
            self.given = []

        def command(self, plan_poses_map, plan_stamp_s, now_s, pose_map, speed_mps):
            self.given.append((now_s, plan_stamp_s))
            return Command(0.0, 0.0)

    watch = Watch()
    drive(
        course_named("city"),
        Straight(),
        watch,
        RolloutConfig(max_time_s=3.0, latency_s=0.35, replan_s=0.3, image_px=SMALL),
    )
    times = np.array(watch.given)
    assert np.diff(times[:, 0]) == pytest.approx(0.025, abs=0.0051)  # 40 Hz on a grid of 10 ms
    age = times[times[:, 0] > 1.0] @ [1.0, -1.0]
    assert age.min() == pytest.approx(0.35, abs=0.011) and age.max() < 0.35 + 0.3 + 1e-6
    assert (times[times[:, 0] < 0.64, 1] == 0.0).all()  # only the first plan was there before


def test_history_is_the_true_path_and_starts_with_a_straight_run_up():
    policy = Straight(4.0)
    result = drive(
        course_named("random:71"),
        policy,
        TrackingController(),
        RolloutConfig(max_time_s=3.0, start_speed_mps=3.0, image_px=SMALL),
    )
    first, later = policy.seen[0], policy.seen[12]
    assert first.history[:, 0] == pytest.approx(0.3 * np.arange(-15, 1), abs=1e-9)
    assert np.abs(first.history[:, 1:]).max() < 1e-9 and first.speed_mps == pytest.approx(3.0)
    assert later.stamp_ns == 2_400_000_000 and later.history[-1] == pytest.approx([0.0, 0.0, 0.0])
    pose = result.plans[12].pose_map
    driven = result.poses[np.searchsorted(result.t_s, 2.4 - 1e-6) - 2 * np.arange(15, -1, -1)]
    assert to_map(later.history, pose) == pytest.approx(driven, abs=1e-9)
    assert later.frames["front"].shape == (1, SMALL[1], SMALL[0], 3)


def test_driving_straight_leaves_the_road_and_is_counted_and_put_back():
    course = course_named("city")
    config = RolloutConfig(max_off_track=3, image_px=SMALL, start_s_m=20.0)
    result = drive(course, Straight(), TrackingController(), config)
    assert result.end == "too often off track" and not result.finished
    assert result.off_track_count == 3
    kinds = [event.what for event in result.events]
    assert kinds[0] == "off_track" and "set_back" in kinds
    event = result.events[0]
    assert course.project((event.x_m, event.y_m)).lateral_m == pytest.approx(event.lateral_m, abs=0.02)
    for moment in result.recovered_s:
        index = int(np.searchsorted(result.t_s, moment - 1e-9))
        assert abs(result.lateral_m[index]) < 0.2 < abs(result.lateral_m[index - 1])
        assert result.speed_mps[index] == pytest.approx(1.0, abs=0.2)
    assert (result.beyond_edge_m > 0).any()


def test_history_starts_anew_after_being_put_back():
    policy = Straight()
    result = drive(
        course_named("city"),
        policy,
        TrackingController(),
        RolloutConfig(max_off_track=2, image_px=SMALL, start_s_m=20.0),
    )
    back_s = next(event.t_s for event in result.events if event.what == "set_back")
    after = next(o for o in policy.seen if o.stamp_ns > back_s * 1e9 + 1e6)
    assert np.abs(np.diff(after.history[:, 0])).max() < 0.2  # one metre a second, no leap across the road


def test_a_kart_that_stands_is_put_back_and_the_time_runs_out():
    result = drive(
        course_named("city"),
        Straight(0.0),
        TrackingController(),
        RolloutConfig(start_speed_mps=0.0, max_time_s=12.0, stuck_s=4.0, image_px=SMALL),
    )
    assert result.end == "time over" and result.laps < 0.05
    assert result.events[0].what == "stuck"
    assert result.t_s[-1] == pytest.approx(12.0, abs=0.06)


def test_a_plan_without_numbers_is_noted_and_not_followed():
    class Broken(Straight):
        def plan_many(self, observations):
            poses = np.full((64, 3), np.nan)
            return [Plan(o.stamp_ns, poses) for o in observations]

    result = drive(course_named("city"), Broken(), TrackingController(), RolloutConfig(max_time_s=2.0, image_px=SMALL))
    assert {event.what for event in result.events} == {"bad_plan"} and not result.plans
    assert result.speed_mps[-1] < 0.1 and np.isfinite(result.poses).all()


def test_several_karts_share_one_forward_pass():
    courses = [course_named(name) for name in ("city", "city-mirror", "random:81")]
    together = Straight()
    configs = [RolloutConfig(max_time_s=2.0, image_px=SMALL, start_s_m=s) for s in (0.0, 0.0, 10.0)]
    shares: list[float] = []
    drives = drive_many([World(c, 3) for c in courses], together, TrackingController, configs, progress=shares.append)
    assert set(together.batches) == {3}
    assert shares and shares == sorted(shares)
    for course, config, batched in zip(courses, configs, drives):
        alone = drive(World(course, 3), Straight(), TrackingController(), config)
        assert np.array_equal(alone.poses, batched.poses)


def test_the_same_seed_gives_the_same_drive_and_the_same_pictures():
    policies = [Straight() for _ in range(3)]
    results = [
        drive(
            course_named("random:91"),
            policy,
            TrackingController(),
            RolloutConfig(max_time_s=1.5, image_px=SMALL, keep_frames=True),
            seed,
        )
        for policy, seed in zip(policies, (1, 1, 2))
    ]
    assert np.array_equal(results[0].poses, results[1].poses)
    frames = [[plan.frame for plan in result.plans] for result in results]
    assert all(np.array_equal(a, b) for a, b in zip(frames[0], frames[1]))
    assert any((a != c).mean() > 0.3 for a, c in zip(frames[0], frames[2]))


def test_the_cameras_of_the_policy_are_rendered():
    policy = Straight()
    policy.cameras = "four"
    drive(course_named("city"), policy, TrackingController(), RolloutConfig(max_time_s=0.9, image_px=SMALL))
    assert sorted(policy.seen[-1].frames) == ["cross_left", "cross_right", "front", "front_tele"]
    assert policy.seen[-1].frames["front_tele"].shape[0] == 4
    assert policy.seen[0].frames["front"].shape[0] == 1  # no frame is made up before the start
    left, right = (policy.seen[-1].frames[name][-1] for name in ("cross_left", "cross_right"))
    assert (left != right).mean() > 0.5


def test_what_does_not_fit_is_said():
    course = course_named("city")
    with pytest.raises(MonoError, match="multiple of"):
        RolloutConfig(replan_s=0.25)
    with pytest.raises(MonoError, match="without a controller"):
        drive(course, Straight())
    with pytest.raises(MonoError, match="cameras"):
        RolloutConfig(cameras=("rear",))
    with pytest.raises(MonoError, match="one per kart"):
        drive_many([course], Straight(), TrackingController, [RolloutConfig()] * 2)
