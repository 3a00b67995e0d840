"""Closed-loop drives inside one process: no ROS, no clock on the wall, the same numbers for the same seed.

The kart is driven by :class:`closed_loop.control.driver.Driver`, as by the ROS node: sensors of a simulated world in,
commands out, on the simulation's clock. Physics runs at 100 Hz, everything else at the rates of the topics. Several
karts drive in lockstep, so that a policy can plan in one batch for all that ask at an instant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from closed_loop.comparison.reasoning import place_plan
from closed_loop.control.driver import Driver, DriverConfig, PlacedPlan
from closed_loop.control.faults import Faults
from closed_loop.control.off_track import DriveGoal, OffTrackMonitor
from closed_loop.control.wheel_odometry import WheelOdometry
from closed_loop.course.course import Course
from closed_loop.simulator.camera import FOUR_CAMERAS, Camera
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.sensors import Sensors
from closed_loop.simulator.vehicle import yaw_rate_radps
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import FloatArray
from collector.reasoning.instructions import read_instruction
from collector.ros.parameters import Rules
from collector.ros.topics import CONTROL_CMD
from collector.vehicle.kart import Command
from collector.vehicle.model import KART, VehicleModel
from finetune.policy import (
    NO_INSTRUCTIONS,
    TAKES_INSTRUCTIONS,
    Observation,
    Policy,
    cameras_of,
    frames_of,
    takes_instructions,
)

CAMERAS: Mapping[str, Camera] = {camera.name: camera for camera in FOUR_CAMERAS}
# A kart that crawls so slowly through the laps asked for does not get there.
_CRAWL_MPS, _PATIENCE_S = 0.75, 30.0


@dataclass(frozen=True)
class RolloutConfig:
    """How a drive runs."""

    laps: float = 1.0  # the drive ends after so many (an open course ends at its end)
    max_time_s: float | None = None  # simulated time at which it ends at the latest; None: twice the time of a crawl
    driver: DriverConfig = field(default_factory=DriverConfig)  # of the kart; its frames follow from the policy
    rules: Rules = "free"  # what the driver may know
    vehicle: VehicleModel = KART  # as the driver knows it
    faults: Faults = field(default_factory=lambda: Faults(latency_s=0.15))
    # What the driver is told, and from which simulated second on; "" takes it back.
    instructions: tuple[tuple[float, str], ...] = ()
    # start_s_m, start_lateral_m, start_heading_rad, start_speed_mps: where the drive begins
    start_s_m: float = 0.0
    start_lateral_m: float = 0.0
    start_heading_rad: float = 0.0
    start_speed_mps: float = 0.0
    reset_beyond_m: float = 1.0  # off the road this far, the kart is placed on the line again ...
    reset_after_s: float = 2.0  # ... or this long
    max_off_track: int = 5  # the drive ends at this many off-track events
    stuck_speed_mps: float = 0.2  # a kart slower than this ...
    stuck_s: float = 5.0  # ... for so long is placed on the line too
    image_px: tuple[int, int] | None = None  # (width, height) of the pictures; None takes the cameras' own
    record_s: float = 0.05  # time between the samples of the result


@dataclass(frozen=True)
class RolloutEvent:
    """Something that happened."""

    what: str  # `off_track` (a corner crossed the edge), `reset` (to the line), `stuck` (after standing) or `bad_plan`
    t_s: float


@dataclass(frozen=True, eq=False)
class Rollout:
    """One drive, sampled every ``record_s``."""

    course: Course  # where it lay
    poses: FloatArray  # (T, 3) base_link in the map
    # t_s, speed_mps, steer_rad, accel_mps2, lateral_m, beyond_edge_m: (T,) time, speed, the two commands, place beside
    # the reference line, and how far the outline reaches over the edge (negative: on the road)
    t_s: FloatArray
    speed_mps: FloatArray
    steer_rad: FloatArray
    accel_mps2: FloatArray
    lateral_m: FloatArray
    beyond_edge_m: FloatArray
    plan_age_s: FloatArray  # (T,) age of the plan in use, NaN without one; always NaN for the expert
    plans: tuple[PlacedPlan, ...]  # in order of time; their stamps count from the start of the drive
    events: tuple[RolloutEvent, ...]  # in order of time
    brakes: Mapping[str, int]  # how often the safety monitor braked, by reason
    laps: float  # laps driven, with fraction. finished: all laps that were asked for.
    finished: bool
    end: str  # why it ended, in words

    @property
    def resets_s(self) -> tuple[float, ...]:
        """Times of the first sample after each reset: the jump before it is no driving."""
        back = [event.t_s for event in self.events if event.what in {"reset", "stuck"}]
        after = [int(np.searchsorted(self.t_s, t + 1e-9)) for t in back]
        return tuple(float(self.t_s[i]) for i in after if i < len(self.t_s))


def check_told(driver: Policy | ExpertConfig, texts: Sequence[str]) -> None:
    """Raise MonoError where a driver takes no instructions, or cannot take one of these."""
    if texts and not takes_instructions(driver):
        raise MonoError(NO_INSTRUCTIONS, TAKES_INSTRUCTIONS, "let another drive, or leave out the instructions")
    check = getattr(driver, "check_instruction", read_instruction)
    for text in texts:
        check(text)


def drive_many(
    worlds: Sequence[World],
    driver: Policy | ExpertConfig,
    configs: Sequence[RolloutConfig],
    progress: Callable[[float], object] = lambda _share: None,
) -> list[Rollout]:
    """Drive several karts in lockstep, each in a world of its own; a Rollout per world, in order.

    The policy is asked once per instant (``plan_many``); an ExpertConfig drives as the expert. ``progress`` hears every
    simulated second the mean share of the asked laps driven.

    Raises:
        MonoError: instructions to a policy that takes none, or that are not understood.
    """
    check_told(driver, [text for config in configs for _, text in config.instructions])
    karts = [_Kart(world, config, driver) for world, config in zip(worlds, configs, strict=True)]
    step = 0
    while running := [kart for kart in karts if not kart.goal.goal]:
        for kart in running:
            kart.sense(step)
        waiting = [kart for kart in running if kart.asked]
        if waiting and not isinstance(driver, ExpertConfig):
            plans = driver.plan_many([kart.asked.pop() for kart in waiting])
            for kart, plan in zip(waiting, plans, strict=True):
                kart.driver.policy_plan(plan, kart.taken)
        for kart in running:
            kart.advance(step)
        if step % 100 == 0:
            # The mean part of the asked laps.
            progress(float(np.mean([min(1.0, kart.goal.laps_done / kart.config.laps) for kart in karts])))
        step += 1
    return [kart.result() for kart in karts]


class _Kart:
    """One kart under way: who commands it, what has been written down, and the rules.

    A policy drives through the driver of the ROS node, which knows what the sensors say; the expert knows the world.
    """

    def __init__(self, world: World, config: RolloutConfig, who: Policy | ExpertConfig) -> None:
        self.world, self.config = world, config
        world.reset(config.start_s_m, config.start_lateral_m, config.start_heading_rad, config.start_speed_mps)
        self._hz = world.config.physics_hz
        self._experts = ExpertPool(who) if isinstance(who, ExpertConfig) else None
        mode = str(getattr(who, "cameras", "mono"))
        cameras = [CAMERAS[name] for name in cameras_of(mode)]
        if config.image_px is not None:
            width, height = config.image_px
            cameras = [replace(camera, width_px=width, height_px=height) for camera in cameras]
        self._sensors = Sensors(world, cameras, config.faults)
        self.asked: list[Observation] = []
        self.driver = Driver(replace(config.driver, frames=frames_of(mode)), self.asked.append, config.faults)
        self._wheels = WheelOdometry(self.driver, config.vehicle) if config.rules == "e2e" else None
        self.driver.policy_ready()
        crawl_s = world.course.length_m * config.laps / _CRAWL_MPS
        limit_s = config.max_time_s if config.max_time_s is not None else _PATIENCE_S + crawl_s
        self.goal = DriveGoal(config.laps, limit_s, max_off_track=config.max_off_track)
        self._off_track = OffTrackMonitor(world.course, world.config.vehicle)
        told = [(at_s, read_instruction(text).beginning) for at_s, text in config.instructions]
        self._told = deque(sorted(told, key=lambda each: each[0]))
        self._now_s = 0.0
        self._command, self._plan_age_s = Command(0.0, 0.0), float("nan")
        self._poses: list[FloatArray] = []
        self._rows: list[tuple[float, ...]] = []
        self._plans: list[PlacedPlan] = []
        self._events: list[RolloutEvent] = []
        self._slow_since_s: float | None = None

    def sense(self, step: int) -> None:
        """Begin a physics step: hand the driver what the sensors say."""
        self._now_s = step / self._hz
        if self._experts is not None:
            return
        now_s, stamp_ns = self._now_s, round(self._now_s * NS_PER_S)
        while self._told and self._told[0][0] <= now_s:
            self.driver.instruct(self._told.popleft()[1])
        if self._wheels is not None:
            if (report := self._sensors.wheels(step)) is not None:
                self._wheels.velocity(stamp_ns, report.speed_mps, report.heading_rate_radps, now_s)
                self._wheels.steering(stamp_ns, report.tire_angle_rad, now_s)
        elif (state := self._sensors.odometry(step)) is not None:
            yaw_rate = yaw_rate_radps(state, self.world.config.vehicle)
            self.driver.odometry(stamp_ns, (state.x_m, state.y_m, state.yaw_rad), state.speed_mps, yaw_rate, now_s)
        if (images := self._sensors.frame(step)) is not None:
            self.driver.frame(stamp_ns, images, now_s)

    def taken(self, placed: PlacedPlan | None) -> None:
        """Note that the driver has taken a plan, or could not."""
        if placed is not None:
            self._plans.append(placed)
        elif self.driver.safety_monitor.defect:
            self._note("bad_plan")

    def advance(self, step: int) -> None:
        """One physics step, with control, records and rules where they are due."""
        if is_due(step, CONTROL_CMD.rate_hz or 0.0, self._hz):
            self._control()
        if is_due(step, 1.0 / self.config.record_s, self._hz):
            self._record()
            self._rules()
        if not self.goal.goal:
            self.world.step(self._command)

    def _control(self) -> None:
        if self._experts is not None:
            world, expert = self.world, self._experts.for_course(self.world.course)
            self._command = expert.command(world.state, world.time_s, world.disturbance)
            return
        tick = self.driver.tick(self._now_s)
        self._command = tick.command
        self._plan_age_s = float("nan") if tick.plan_age_s is None else tick.plan_age_s

    def _record(self) -> None:
        world, command = self.world, self._command
        if self._off_track.update(round(self._now_s * NS_PER_S), world.pose):
            self._note("off_track")
        place = (world.lateral_m, self._off_track.beyond_m)
        self._poses.append(world.pose)
        self._rows.append(
            (self._now_s, world.speed_mps, command.steer_rad, command.accel_mps2, *place, self._plan_age_s)
        )

    def _rules(self) -> None:
        """Laps, off-track and standstill, looked at with every record."""
        c, world = self.config, self.world
        laps = world.progress if world.course.closed else world.station_m / world.course.length_m
        self.goal.laps_done = c.laps if world.finished else laps
        if self.goal.judge(self._now_s, self._off_track):
            return
        if world.speed_mps >= c.stuck_speed_mps:
            self._slow_since_s = None
        elif self._slow_since_s is None:
            self._slow_since_s = self._now_s
        if self._off_track.beyond_m > c.reset_beyond_m or self._off_track.off_s > c.reset_after_s:
            self._reset("reset")
        elif self._slow_since_s is not None and self._now_s - self._slow_since_s > c.stuck_s:
            self._reset("stuck")

    def _reset(self, what: str) -> None:
        self._note(what)
        self.world.recover()
        self._off_track.reset()
        self._slow_since_s = None
        if self._experts is not None:
            self._experts.for_course(self.world.course).reset()

    def _note(self, what: str) -> None:
        self._events.append(RolloutEvent(what, self._now_s))

    def result(self) -> Rollout:
        """What came of it."""
        t_s, speed, steer, accel, lateral, beyond, plan_age = np.array(self._rows).T
        motion = (np.array(self._poses), t_s, speed, steer, accel, lateral, beyond, plan_age)
        plans, events, brakes = self._plans, tuple(self._events), self.driver.safety_monitor.brakes
        if self._wheels is not None:
            stamps_ns = np.round(t_s * NS_PER_S).astype(np.int64)
            plans = [replace(place_plan(each.plan, stamps_ns, motion[0]), taken_ns=each.taken_ns) for each in plans]
        goal = self.goal
        return Rollout(
            self.world.course, *motion, tuple(plans), events, brakes, float(goal.laps_done), goal.complete, goal.goal
        )
