"""The tracking controller on the simulator's own kart, following what a perfect driver would do next."""

from __future__ import annotations

import copy
from collections import deque

import numpy as np
import pytest

from closed_loop.control.controller import ControllerConfig, PlanPath, TrackingController
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import Expert
from closed_loop.simulator.vehicle import Vehicle
from collector.common.errors import MonoError
from collector.geometry.poses import mirror_poses, to_map
from collector.vehicle.kart import Command
from collector.vehicle.model import KART, VehicleModel

STEP_S = 0.01


def expert_future(vehicle: Vehicle, expert: Expert, now_s: float) -> np.ndarray:
    """Where the expert would really be at 0.1 ... 6.4 s, by driving a copy of the kart."""
    vehicle, fork = copy.deepcopy(vehicle), copy.copy(expert)
    fork._sent = deque(expert._sent)
    poses = []
    for half_step in range(128):
        command = fork.command(vehicle.state, now_s + 0.05 * half_step)
        for _ in range(5):
            vehicle.step(command.steer_rad, command.accel_mps2, STEP_S)
        if half_step % 2:
            poses.append(vehicle.state.pose)
    return np.array(poses)


def drive(course: Course, config: ControllerConfig, start_m: float, seconds: float, latency_s: float) -> np.ndarray:
    """Lateral errors at 100 Hz, replanning every 0.4 s, each plan usable ``latency_s`` after its t0."""
    vehicle, expert, controller = Vehicle(), Expert(course), TrackingController(config)
    vehicle.place(course.pose_at(start_m), 3.0)
    errors, ready, plan, station = [], [], None, start_m
    command = Command(0.0, 0.0)
    for tick in range(round(seconds / STEP_S)):
        now_s = tick * STEP_S
        if tick % 40 == 0:
            expert.reset()
            expert._sent.extend(controller._sent)
            ready.append((now_s + latency_s, now_s, expert_future(vehicle, expert, now_s)))
        while ready and ready[0][0] <= now_s + 1e-9:
            plan = ready.pop(0)
        if tick % 2 == 0 and plan is not None:
            command = controller.command(plan[2], plan[1], now_s, vehicle.state.pose, vehicle.state.speed_mps)
        vehicle.step(command.steer_rad, command.accel_mps2, STEP_S)
        foot = course.project(vehicle.state.pose[:2], station)
        station = float(foot.s_m)
        errors.append(float(foot.lateral_m))
    return np.array(errors)


def test_follows_perfect_plans_through_a_four_metre_corner() -> None:
    course = course_named("city")  # stations 187 to 212: a hairpin of 3.97 m radius
    errors = drive(course, ControllerConfig(), start_m=182.0, seconds=8.0, latency_s=0.15)
    assert np.abs(errors).max() < 0.2
    late = drive(course, ControllerConfig(), start_m=182.0, seconds=8.0, latency_s=0.5)
    assert np.abs(late).max() < 0.2  # an old plan is used where it is now
    uncompensated = drive(course, ControllerConfig(steering_gain=1.0), start_m=182.0, seconds=8.0, latency_s=0.15)
    assert np.abs(uncompensated).max() > 0.3


def straight_plan(speed_mps: float, steps: int = 64) -> np.ndarray:
    return np.stack([speed_mps * 0.1 * np.arange(1, steps + 1), np.zeros(steps), np.zeros(steps)], axis=1)


def arc_plan(radius_m: float, speed_mps: float) -> np.ndarray:
    """A circle to the left (negative radius: to the right)."""
    yaw = speed_mps * 0.1 * np.arange(1, 65) / radius_m
    return np.stack([radius_m * np.sin(yaw), radius_m * (1.0 - np.cos(yaw)), yaw], axis=1)


def test_brakes_without_a_plan_for_this_instant() -> None:
    controller = TrackingController()
    pose = np.zeros(3)
    assert controller.command(None, 0.0, 0.0, pose, 3.0).accel_mps2 < -1.0
    assert controller.command(straight_plan(3.0), 0.0, 0.1, pose, 3.0).accel_mps2 == pytest.approx(0.0, abs=0.05)
    assert controller.command(straight_plan(3.0), 0.0, 6.5, pose, 3.0).accel_mps2 < -1.0
    assert controller.command(straight_plan(3.0), 60.0, 6.6, pose, 3.0).accel_mps2 < -1.0


def test_reads_speed_by_time_not_by_place() -> None:
    plan = straight_plan(3.0)
    plan[:, 0] = np.cumsum(np.linspace(4.0, 1.0, 64) * 0.1)  # slows down by 0.47 m/s^2
    early = TrackingController().command(plan, 0.0, 0.5, np.zeros(3), 3.0)
    late = TrackingController().command(plan, 0.0, 5.0, np.zeros(3), 3.0)
    assert early.accel_mps2 > 0.5 > -0.5 > late.accel_mps2
    speed, accel = PlanPath(plan, 0.1).speed(3.0, 0.6)
    assert speed == pytest.approx(4.0 - 3.0 * 0.476, abs=0.03)
    assert accel == pytest.approx(-0.476, abs=0.01)


def speeding_up(from_mps: float, to_mps: float) -> np.ndarray:
    plan = straight_plan(1.0)
    plan[:, 0] = np.cumsum(np.linspace(from_mps, to_mps, 64) * 0.1)
    return plan


def test_a_kart_behind_its_plan_drives_as_planned_for_where_it_is() -> None:
    """By the time the plan is out of the bend and fast; the kart, which was slower, is still in it."""
    config, plan, pose = ControllerConfig(blind_m=100.0), speeding_up(1.0, 6.0), np.array([0.5, 0.0, 0.0])
    on_time = TrackingController(config).command(plan, 0.0, 0.4, pose, 1.8, driven_m=0.5)
    behind = TrackingController(config).command(plan, 0.0, 2.5, pose, 1.8, driven_m=0.5)
    assert behind.accel_mps2 == pytest.approx(on_time.accel_mps2, abs=0.1)
    assert behind.accel_mps2 < 0.5  # by time alone it would hurry


def test_a_kart_is_sought_on_its_plan_where_it_has_driven_to() -> None:
    """A plan there and back again, 1.5 m beside: by place alone the way back would be as near."""
    there, back = straight_plan(2.0, 30), straight_plan(2.0, 30)
    back[:, 0], back[:, 1], back[:, 2] = there[::-1, 0], 1.5, np.pi
    bend = np.array([[6.3, 0.4, 0.8], [6.5, 0.75, 1.57], [6.3, 1.1, 2.4], [6.1, 1.4, 2.8]])
    plan, config = np.vstack([there, bend, back]), ControllerConfig(steer_rate_radps=100.0)
    pose = np.array([1.0, 0.9, 0.0])  # nearer to the way back
    early = TrackingController(config).command(plan, 0.0, 5.5, pose, 1.0, driven_m=1.0)
    assert -0.64 <= early.steer_rad < -0.1  # to the right, onto the way there
    late = TrackingController(config).command(plan, 0.0, 5.5, pose, 1.0, driven_m=11.0)
    assert late.steer_rad != pytest.approx(early.steer_rad, abs=0.1)


@pytest.mark.parametrize(("blind_s", "most_mps"), [(0.45, 5.0), (1.3, 3.0 / 1.3), (2.5, 3.0 / 2.5)])
def test_late_plans_are_driven_slowly(blind_s: float, most_mps: float) -> None:
    config, plan = ControllerConfig(blind_m=3.0), straight_plan(5.0)
    assert most_mps == pytest.approx(min(5.0, config.blind_m / blind_s))
    for speed_mps, accel_mps2 in ((most_mps, 0.0), (most_mps - 0.2, 0.3), (most_mps + 0.2, -0.3)):
        given = TrackingController(config).command(plan, 0.0, 0.2, np.zeros(3), speed_mps, 0.2, blind_s)
        assert given.accel_mps2 == pytest.approx(accel_mps2, abs=0.01)
    # A plan that is older than expected counts with its age.
    older = TrackingController(config).command(plan, 0.0, 3.0, np.zeros(3), 3.0, 0.2, blind_s)
    assert older.accel_mps2 == pytest.approx(max(1.5 * (1.0 - 3.0), -3.0), abs=0.01)


def test_a_kart_can_stop_within_what_its_plan_shows() -> None:
    config, blind_s = ControllerConfig(blind_m=100.0), 2.0
    for speed_mps in np.arange(0.2, 6.0, 0.2):
        plan = straight_plan(4.0)
        plan[:, 0] = np.minimum(plan[:, 0], 3.0)  # it sees 3 m ahead
        given = TrackingController(config).command(plan, 0.0, 0.0, np.zeros(3), speed_mps, 0.0, blind_s)
        needed_m = speed_mps * blind_s + speed_mps**2 / (2.0 * -config.stop_mps2)
        assert (given.accel_mps2 < 0.0) == (needed_m > 3.0)


@pytest.mark.parametrize(("planned_mps", "expected_mps2"), [(0.3, 0.6), (3.0, 1.0)])
def test_a_standing_kart_is_moved_off_hard_enough_to_start(planned_mps: float, expected_mps2: float) -> None:
    controller = TrackingController()
    plan = straight_plan(planned_mps)
    assert controller.command(plan, 0.0, 0.0, np.zeros(3), 0.0).accel_mps2 == pytest.approx(expected_mps2)
    assert controller.command(plan, 0.0, 0.1, np.zeros(3), planned_mps - 0.05).accel_mps2 < 0.3, (
        "once it rolls no longer"
    )


def test_a_plan_that_stands_does_not_move_off() -> None:
    assert TrackingController().command(straight_plan(0.02), 0.0, 0.0, np.zeros(3), 0.0).accel_mps2 < 0.1


def test_the_controller_is_that_of_its_vehicle() -> None:
    odd = VehicleModel(wheelbase_m=1.3, steering_gain=0.9, dead_time_s=0.2, lag_s=0.05, sticks_below_mps2=0.8)
    config = ControllerConfig.of(odd, 4.0)
    assert (config.wheelbase_m, config.steering_gain, config.dead_time_s, config.lag_s) == (1.3, 0.9, 0.2, 0.05)
    assert config.move_off_mps2 == pytest.approx(1.2) and config.max_speed_mps == 4.0
    assert ControllerConfig.of(KART) == ControllerConfig()


def test_steers_the_angle_of_a_circle_and_mirrors_exactly() -> None:
    config = ControllerConfig(steer_rate_radps=100.0)
    left = TrackingController(config)
    right = TrackingController(config)
    plan = arc_plan(5.0, 3.0)
    for tick in range(80):
        now_s = tick * 0.025
        yaw = 3.0 * now_s / 5.0
        pose = np.array([5.0 * np.sin(yaw), 5.0 * (1.0 - np.cos(yaw)), yaw])
        one = left.command(plan, 0.0, now_s, pose, 3.0)
        other = right.command(mirror_poses(plan), 0.0, now_s, mirror_poses(pose), 3.0)
        assert other.steer_rad == pytest.approx(-one.steer_rad, abs=1e-9)
    assert one.steer_rad == pytest.approx(np.arctan(1.087 / 5.0) / 0.62, rel=0.03)


def test_commands_stay_within_limits() -> None:
    config = ControllerConfig(max_speed_mps=2.0)
    controller, previous = TrackingController(config), 0.0
    random = np.random.default_rng(3)
    for tick in range(200):
        if tick % 8 == 0:
            plan = to_map(arc_plan(random.choice([-2.0, 2.0, 9.0]), random.uniform(0.0, 9.0)), random.normal(0, 1, 3))
        command = controller.command(plan, tick // 8 * 0.2, tick * 0.025, random.normal(0, 1, 3), 3.0)
        assert abs(command.steer_rad) <= 0.64
        assert -3.0 <= command.accel_mps2 <= 1.0
        if tick:
            assert abs(command.steer_rad - previous) <= config.steer_rate_radps * 0.025 + 1e-9
        previous = command.steer_rad
    fast = TrackingController(config).command(straight_plan(8.0), 0.0, 0.5, np.zeros(3), 3.0)
    assert fast.accel_mps2 < -1.0  # the plan's 8 m/s are cut to 2


def test_plans_that_stand_still_or_fold_back_stop_the_kart() -> None:
    still = TrackingController().command(straight_plan(0.0), 0.0, 0.2, np.zeros(3), 2.0)
    assert still.accel_mps2 == pytest.approx(-3.0)
    assert still.steer_rad == pytest.approx(0.0, abs=1e-6)
    back = TrackingController().command(straight_plan(-2.0), 0.0, 0.2, np.zeros(3), 2.0)
    assert back.accel_mps2 == pytest.approx(-3.0)
    assert np.isfinite(back.steer_rad)


def test_refuses_plans_and_settings_it_cannot_use() -> None:
    with pytest.raises(MonoError, match="finite"):
        TrackingController().command(np.full((64, 3), np.nan), 0.0, 0.0, np.zeros(3), 1.0)
    with pytest.raises(MonoError, match="steering_gain"):
        ControllerConfig(steering_gain=0.0)
