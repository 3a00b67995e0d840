"""The driver's core against the kart model on a fake clock: it follows its plans, and stops when it should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from closed_loop.control.driver import Driver, DriverConfig, PlacedPlan, Tick
from closed_loop.control.last_path import carried
from closed_loop.simulator.vehicle import Vehicle
from finetune.policy import Observation, Plan
from tests.helpers.constant_curvature import ConstantCurvature
from tests.helpers.pictures import road_picture

STEP_S, RADIUS_M, SPEED_MPS = 0.01, 8.0, 2.5


class Loop:
    """Kart, driver and a policy with latency, stepped together; the steady clock runs beside the stamps."""

    def __init__(self, latency_s: float = 0.15, time_rate: float = 1.0) -> None:
        self.driver = Driver(DriverConfig(), self._ask)
        self.policy = ConstantCurvature(curvature_1pm=1 / RADIUS_M, speed_mps=SPEED_MPS)
        self.vehicle = Vehicle()
        self.latency_s, self.time_rate = latency_s, time_rate
        self.step, self.camera, self.alive = 0, True, True
        self.asked: list[int] = []
        self.due: list[tuple[float, Observation]] = []
        self.tick: Tick | None = None
        self.spoil: Callable[[np.ndarray], None] = lambda poses: None
        self.driver.policy_ready()

    @property
    def t_s(self) -> float:
        return self.step * STEP_S

    def _ask(self, observation: Observation) -> None:
        self.asked.append(observation.stamp_ns)
        self.due.append((self.t_s + self.latency_s, observation))

    def run(self, seconds: float) -> list[Tick]:
        ticks = []
        for _ in range(round(seconds / STEP_S)):
            self.step += 1
            steady_s, stamp_ns = 50.0 + self.t_s / self.time_rate, self.step * 10_000_000
            state = self.vehicle.state
            if self.step % 2 == 0:
                self.driver.odometry(stamp_ns, tuple(state.pose), state.speed_mps, 0.0, steady_s)
            if self.camera and self.step % 10 == 0:
                picture = road_picture(self.driver.poses.travelled_m)
                self.driver.frame(stamp_ns, {"front": picture}, steady_s)
            while self.alive and self.due and self.due[0][0] <= self.t_s:
                plan = self.policy.plan(self.due.pop(0)[1])
                self.spoil(plan.poses)
                self.driver.policy_plan(plan)
            if self.step % 2 == 1:
                self.tick = self.driver.tick(steady_s)
                ticks.append(self.tick)
            if self.tick is not None:
                self.vehicle.step(self.tick.command.steer_rad, self.tick.command.accel_mps2, STEP_S)
        return ticks


@pytest.mark.parametrize("time_rate", [1.0, 4.0])
def test_it_drives_the_circle_it_plans(time_rate: float) -> None:
    loop = Loop(time_rate=time_rate)
    loop.run(6.0)
    track, ticks = [], []
    for _ in range(50):
        ticks += loop.run(0.1)
        track.append(loop.vehicle.state.pose)
    assert all(tick.decision.drive for tick in ticks)
    assert loop.vehicle.state.speed_mps == pytest.approx(SPEED_MPS, abs=0.1)
    turn_rate = np.diff(np.unwrap(np.array(track)[:, 2])).mean() / 0.1
    assert turn_rate == pytest.approx(SPEED_MPS / RADIUS_M, rel=0.1)
    # A plan every 0.2 s, and as old as its latency when it is first used.
    assert np.diff(loop.asked).max() == 200_000_000
    ages = [tick.plan_age_s for tick in ticks]
    assert 0.13 < min(ages) < 0.2 and max(ages) < 0.4


def test_a_slow_policy_gets_the_newest_frame_when_it_is_free() -> None:
    loop = Loop(latency_s=0.47)
    loop.run(10.0)
    assert np.diff(loop.asked).min() >= 400_000_000
    ages = [tick.plan_age_s for tick in loop.run(3.0)]
    assert max(ages) < 2 * 0.47 + 0.1 + 0.05


def test_it_slows_down_while_plans_come_late_and_forgives_one_that_does() -> None:
    loop = Loop()
    loop.run(8.0)
    asked, slowest_mps = len(loop.asked), SPEED_MPS
    loop.latency_s = 0.9
    while len(loop.asked) == asked:
        loop.run(0.05)
    loop.latency_s = 0.15
    for _ in range(30):
        loop.run(0.1)
        slowest_mps = min(slowest_mps, loop.vehicle.state.speed_mps)
    assert slowest_mps > 0.85 * SPEED_MPS
    loop.latency_s = 0.9
    loop.run(4.0)  # the first two it did not expect
    ticks = loop.run(6.0)
    # 1.8 s until the next plan, and a frame's period.
    assert loop.vehicle.state.speed_mps == pytest.approx(DriverConfig().controller.blind_m / 1.9, abs=0.15)
    assert all(tick.decision.drive for tick in ticks)
    assert max(tick.plan_age_s or 0.0 for tick in ticks) > DriverConfig().limits.plan_age_s
    loop.latency_s = 0.15
    loop.run(8.0)
    assert loop.vehicle.state.speed_mps == pytest.approx(SPEED_MPS, abs=0.1)


@pytest.mark.parametrize(
    ("break_it", "reason", "within_s"), [("camera", "camera frame stale", 0.7), ("alive", "plan stale", 1.0)]
)
def test_it_brakes_to_a_stop_along_its_plan(break_it: str, reason: str, within_s: float) -> None:
    loop = Loop()
    loop.run(6.0)
    setattr(loop, break_it, False)
    ticks = loop.run(within_s)
    assert ticks[0].decision.drive and not ticks[-1].decision.drive
    assert ticks[-1].decision.reason == reason
    assert ticks[-1].command.accel_mps2 < -1.0
    pose = loop.vehicle.state.pose
    loop.run(3.0)
    assert loop.vehicle.state.speed_mps == 0.0
    # Still on the circle while stopping, and not off along its tangent.
    moved, turned = np.hypot(*(loop.vehicle.state.pose - pose)[:2]), loop.vehicle.state.yaw_rad - pose[2]
    assert moved > 0.5 and turned == pytest.approx(moved / RADIUS_M, rel=0.35)
    setattr(loop, break_it, True)
    loop.run(2.0)
    assert loop.vehicle.state.speed_mps > 0.5


def test_death_of_the_policy_is_final() -> None:
    loop = Loop()
    loop.run(6.0)
    loop.driver.policy_died("ended by signal 9")
    loop.run(4.0)
    assert loop.tick is not None and loop.tick.decision.reason == "policy process died"
    assert loop.vehicle.state.speed_mps == 0.0


def test_an_insane_plan_is_never_steered_by() -> None:
    loop = Loop()
    loop.run(6.0)

    def spoil(poses: np.ndarray) -> None:
        poses[:, 1] -= 3.0

    loop.spoil = spoil
    ticks = loop.run(4.0)
    assert ticks[-1].decision.reason == "plan not sane" and "starts" in ticks[-1].decision.detail
    assert min(tick.command.steer_rad for tick in ticks) > 0.0
    assert loop.vehicle.state.speed_mps == 0.0


def test_after_a_reset_it_waits_for_a_plan_from_there() -> None:
    loop = Loop(latency_s=0.15)
    loop.run(6.0)
    loop.vehicle.place((500.0, 100.0, 1.0), 0.0)
    ticks = loop.run(0.1)
    assert loop.driver.jumps == 1
    assert ticks[-1].decision.reason in ("no plan yet", "vehicle off its plan")
    loop.run(6.0)
    assert loop.tick is not None and loop.tick.decision.drive
    assert loop.vehicle.state.speed_mps > 1.0 and np.hypot(*(loop.vehicle.state.pose[:2] - (500, 100))) < 20.0


def test_a_plan_from_before_the_memory_is_dropped() -> None:
    loop = Loop()
    loop.run(2.0)
    taken: list[PlacedPlan | None] = []
    loop.driver.policy_plan(Plan(-(10**12), np.zeros((64, 3))), taken.append)
    assert taken == [None]


def test_non_finite_odometry_counts_as_none() -> None:
    loop = Loop()
    loop.run(5.0)
    for index in range(50):
        loop.driver.odometry(loop.step * 10_000_000 + index, (float("nan"), 0.0, 0.0), 1.0, 0.0, 99.0)
    assert loop.driver.tick(99.0).decision.reason in ("camera frame stale", "odometry stale")


def test_stopping_brakes_without_asking_again() -> None:
    loop = Loop()
    loop.run(6.0)
    loop.driver.stop()
    asked = len(loop.asked)
    loop.run(4.0)
    assert loop.vehicle.state.speed_mps == 0.0 and len(loop.asked) <= asked + 1


def test_a_pose_carried_along_a_circle() -> None:
    np.testing.assert_allclose(carried(np.zeros(3), 2.0, 0.5, 0.1), [0.2, 0.005, 0.05], atol=1e-4)


def test_a_lagging_camera_is_shown_at_the_moment_its_frames_show() -> None:
    """The same drive with stamps 80 ms late and the calibration that says so: the same observations."""
    asked: dict[float, list[Observation]] = {}
    for lag_s in (0.0, 0.08):
        shown = asked[lag_s] = []
        driver = Driver(DriverConfig(camera_lag_s=lag_s), shown.append)
        driver.policy_ready()
        for step in range(400):
            stamp_ns = step * 10_000_000
            angle = SPEED_MPS * step * STEP_S / RADIUS_M
            pose = (RADIUS_M * np.sin(angle), RADIUS_M * (1.0 - np.cos(angle)), angle)
            driver.odometry(stamp_ns, pose, SPEED_MPS, 0.0, 50.0 + step * STEP_S)
            late_ns = stamp_ns - round(lag_s * 1e9)
            if late_ns % 100_000_000 == 0:
                driver.frame(stamp_ns, {"front": road_picture(angle)}, 50.0 + step * STEP_S)
                driver.policy_ready()
    true, late = ({o.stamp_ns: o for o in asked[lag_s]} for lag_s in (0.0, 0.08))
    assert len(true) > 8 and all(stamp_ns % 100_000_000 == 0 for stamp_ns in late)
    common = true.keys() & late
    assert len(common) > 8
    for stamp_ns in common:
        np.testing.assert_array_equal(true[stamp_ns].history, late[stamp_ns].history)
        assert true[stamp_ns].speed_mps == late[stamp_ns].speed_mps


def test_a_kart_that_is_held_stands_and_drives_on_when_let_go() -> None:
    loop = Loop()
    loop.driver.hold("not yet")
    ticks = loop.run(3.0)
    assert {tick.decision.reason for tick in ticks[50:]} == {"held"} and loop.vehicle.state.speed_mps == 0.0
    assert max(tick.command.accel_mps2 for tick in ticks) < 0.0
    loop.driver.hold("")
    loop.run(4.0)
    assert loop.vehicle.state.speed_mps > 2.0
    loop.driver.hold("stand")
    loop.run(3.0)
    assert loop.vehicle.state.speed_mps == 0.0
    loop.driver.hold("")
    loop.run(4.0)
    assert loop.vehicle.state.speed_mps > 2.0, "it starts anew after a stop"


def test_an_instruction_reaches_the_next_frame_and_moves_no_held_kart() -> None:
    loop, told = Loop(), list[str]()
    ask = loop._ask
    loop.driver._submit = lambda observation: (told.append(observation.instruction), ask(observation))  # type: ignore[func-returns-value]
    loop.run(1.0)
    loop.driver.hold("stand")
    loop.run(3.0)
    assert loop.vehicle.state.speed_mps == 0.0 and set(told) == {""}
    loop.driver.instruct("Drive briskly")
    ticks = loop.run(2.0)
    assert told[-1] == "Drive briskly"
    assert {tick.decision.reason for tick in ticks} == {"held"} and loop.vehicle.state.speed_mps == 0.0
    loop.driver.instruct("")
    loop.run(0.3)
    assert told[-1] == ""
