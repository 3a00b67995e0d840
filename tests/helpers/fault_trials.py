"""One fault in one drive, in process: the kart comes to a curve at 5 m/s, and 5 m before it something breaks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np

from closed_loop.control.driver import Driver, DriverConfig
from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.control.wheel_odometry import WheelOdometry
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.vehicle import yaw_rate_radps
from closed_loop.simulator.world import World
from collector.vehicle.kart import Command
from collector.vehicle.model import KART
from finetune.policy import Observation, Plan
from tests.helpers.driver_faults import Answer, Fault, Frame, Injected, Odometry
from tests.helpers.road_driver import RoadPlanner, mark, number_of

HZ, BEFORE_M, RUN_UP_M = 100, 5.0, 14.0
COURSE, FAULT_S, AFTER_S, LATENCY_S = "city", 5.0, 6.0, 0.12
STANDING_MPS = 0.05


@cache
def curve_m(course: Course, least_1pm: float = 0.12, straight_m: float = 22.0) -> float:
    """Where the first bend begins that is narrow and comes after a straight."""
    stations = np.arange(straight_m, course.length_m, 0.5)
    for station in stations:
        ahead = np.abs(course.at(station + np.arange(0.0, 4.0, 0.5), course.curvature_1pm))
        behind = np.abs(course.at(station - np.arange(0.5, straight_m, 0.5), course.curvature_1pm))
        if ahead.max() > least_1pm and behind.max() < 0.05 and ahead[0] > 0.03:
            return float(station)
    raise AssertionError(f"{course.name} has no narrow bend behind a straight")


@cache
def world_of(course: str) -> World:
    """A world, painted once."""
    return World(course_named(course))


@dataclass
class Trial:
    """What came of it; times since the fault began."""

    fault: str
    braked_s: float | None = None  # first braking command ...
    reason: str = ""  # ... and the reason given for the first of the monitor's brakes
    monitor_s: float | None = None
    standing_s: float | None = None
    blind_m: float = 0.0  # driven until the first braking command
    beyond_m: float = -9.0  # farthest over the edge, negative on the road; until the fault was over
    beyond_after_m: float = -9.0
    speed_mps: float = 0.0  # when it began
    end_mps: float = 0.0  # at the end of the fault
    recovered: bool = False
    brakes: dict[str, int] = field(default_factory=dict)

    def row(self) -> str:
        """For a table."""
        times = [f"{t:.2f} s" if t is not None else "-" for t in (self.braked_s, self.standing_s)]
        edge = f"{self.beyond_m:+.2f} m"
        return (
            f"| {self.fault} | {times[0]} | {times[1]} | {self.blind_m:.1f} m | {edge} | "
            f"{'yes' if self.recovered else 'no'} | {self.reason} |"
        )


class Drive:
    """Kart, sensors, driver and policy on one clock; the fault in between."""

    def __init__(
        self,
        fault: Fault,
        rules: str = "free",
        course: str = COURSE,
        fault_s: float = FAULT_S,
        after_s: float = AFTER_S,
        camera_s: float = 0.1,
    ) -> None:
        self.fault_s, self.after_s, self.camera_s = fault_s, after_s, camera_s
        self.fault, self.injected, self.rules = fault, Injected(fault), rules
        self.world = world_of(course)
        self.curve_m = curve_m(self.world.course)
        self.world.reset(self.curve_m - BEFORE_M - RUN_UP_M, 0.0, 0.0, 0.0)
        self.road = OffTrackMonitor(self.world.course)
        self.planner = RoadPlanner(self.world.course)
        self.driver = Driver(DriverConfig(), self._ask)
        self.wheels = WheelOdometry(self.driver, KART)
        self.camera = replace(FRONT, width_px=320, height_px=180)
        self.step, self.began_step = 0, -1
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0
        self.command = Command(0.0, 0.0)
        self.trial = Trial(fault.name)
        self.driver.policy_ready()

    @property
    def t_s(self) -> float:
        return self.step / HZ

    @property
    def since_s(self) -> float | None:
        """Since the fault began, None before and after it."""
        if self.began_step < 0 or self.t_s - self.began_step / HZ > self.fault_s:
            return None
        return self.t_s - self.began_step / HZ

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.queue, (self.t_s + seconds, self.number, call))

    def _ask(self, observation: Observation) -> None:
        poses = self.planner.plan(observation.frames["front"][-1], observation.speed_mps or 0.0)
        for answer in self.injected.passed("plan", self.since_s, Answer(poses)):
            if answer.what == "die":
                self.later(LATENCY_S, lambda: self.driver.policy_died("ended by signal 9"))
            elif answer.what == "error":
                self.later(LATENCY_S, lambda: self.driver.policy_failed("out of memory"))
            elif answer.what == "plan":
                plan = Plan(observation.stamp_ns, answer.poses, answer.reasoning or "")
                self.later(LATENCY_S + answer.late_s, partial(self.driver.policy_plan, plan))

    def _say(self, stream: str, message: Any, hand_on: Callable[[Any], None]) -> None:
        for each in self.injected.passed(stream, self.since_s, message):
            late_s = getattr(each, "late_s", 0.0)
            if late_s:
                self.later(late_s, partial(hand_on, each))
            else:
                hand_on(each)

    def _frame(self, frame: Frame) -> None:
        if frame.encoding == "bgr8":
            self.driver.frame(frame.stamp_ns, {"front": frame.image}, 500.0 + self.t_s)

    def _odometry(self, o: Odometry) -> None:
        self.driver.odometry(o.stamp_ns, (o.x, o.y, o.yaw), o.speed, o.rate, 500.0 + self.t_s)

    def _wheels(self, o: Odometry) -> None:
        self.wheels.velocity(o.stamp_ns, o.speed, o.rate, 500.0 + self.t_s)

    def _steering(self, o: Odometry) -> None:
        self.wheels.steering(o.stamp_ns, o.speed, 500.0 + self.t_s)

    def sense(self) -> None:
        """What the simulator would publish at this step."""
        state, stamp_ns = self.world.state, (self.step + 1) * 10_000_000
        self._say("clock", Odometry(stamp_ns, 0, 0, 0, 0), lambda c: self.driver.clock(c.stamp_ns, 500.0 + self.t_s))
        moving = Odometry(stamp_ns, state.x_m, state.y_m, state.yaw_rad, state.speed_mps, yaw_rate_radps(state, KART))
        if self.rules == "free" and self.step % 2 == 0:
            self._say("odometry", moving, self._odometry)
        if self.rules == "e2e" and self.step % 3 == 0:
            self._say("wheels", moving, self._wheels)
            self._say("steering", Odometry(stamp_ns, 0, 0, 0, state.steer_rad), self._steering)
        if is_due(self.step, 1.0 / self.camera_s, HZ):
            image = self.world.render(self.camera)
            mark(image, number_of(self.world.pose, self.world.course))
            self._say("frame", Frame(stamp_ns, image), self._frame)

    def run(self) -> Trial:
        """Drive to the fault, through it, and on."""
        trial, ended = self.trial, False
        while True:
            if self.began_step < 0 and self.world.station_m > self.curve_m - BEFORE_M:
                self.began_step, trial.speed_mps = self.step, self.world.speed_mps
                assert not self.driver.safety_monitor.brakes.keys() - {"no plan yet", "no camera frame yet"}
                self.world_m = self.world.progress_m
            assert self.step < 20 * HZ or self.began_step >= 0, "the kart never came to the curve"
            since_s = self.since_s
            if self.began_step >= 0 and since_s is None and not ended:
                ended, trial.end_mps = True, self.world.speed_mps
            if ended and self.t_s - self.began_step / HZ > self.fault_s + self.after_s:
                break
            self.sense()
            while self.queue and self.queue[0][0] <= self.t_s + 1e-9:
                heapq.heappop(self.queue)[2]()
            if self.step % 5 in (0, 2):
                self._control(since_s)
            self.world.step(self.command)
            if self.began_step >= 0 and self.step % 5 == 0:
                self._note(since_s, ended)
            self.step += 1
        trial.recovered = self.world.speed_mps > 0.5
        trial.brakes = dict(self.driver.safety_monitor.brakes)
        return trial

    def _control(self, since_s: float | None) -> None:
        tick, trial = self.driver.tick(500.0 + self.t_s), self.trial
        self.command = tick.command
        if since_s is None:
            return
        if trial.braked_s is None and tick.command.accel_mps2 < -1.9:
            trial.braked_s, trial.blind_m = since_s, self.world.progress_m - self.world_m
        if trial.monitor_s is None and not tick.decision.drive:
            trial.monitor_s, trial.reason = since_s, f"{tick.decision.reason}: {tick.decision.detail}"

    def _note(self, since_s: float | None, ended: bool) -> None:
        trial = self.trial
        self.road.update(self.step * 10_000_000, self.world.pose)
        if ended:
            trial.beyond_after_m = max(trial.beyond_after_m, self.road.beyond_m)
            return
        trial.beyond_m = max(trial.beyond_m, self.road.beyond_m)
        if self.world.speed_mps < STANDING_MPS and trial.standing_s is None:
            trial.standing_s = since_s
