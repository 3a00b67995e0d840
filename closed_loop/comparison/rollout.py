"""Closed-loop drives inside one process: no ROS, no clock on the wall, the same numbers for the same seed.

Physics runs at 100 Hz, the controller at 40 Hz, the cameras at 10 Hz. A plan made from the frame at t is used
from t + latency on, as it would be in a real kart. Several karts drive in lockstep, so that a policy can plan
for all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from closed_loop.comparison.drives import CAMERAS, Drive, DriveEvent, DrivenPlan, RolloutConfig
from closed_loop.control.kart import Command
from closed_loop.course.course import Course
from closed_loop.simulator.camera import Camera
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego, to_map
from finetune.policy import FUTURE_STEPS, HISTORY_STEPS, STEP_S, Observation, Plan, Policy, cameras_of, frames_of

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

CONTROL_S = 0.025


class Controller(Protocol):
    """Follows a plan; ``closed_loop.control.controller.TrackingController`` is one."""

    def command(
        self,
        plan_poses_map: FloatArray | None,
        plan_stamp_s: float,
        now_s: float,
        pose_map: FloatArray,
        speed_mps: float,
    ) -> Command: ...


def drive(
    world: World | Course,
    driver: Policy | ExpertConfig,
    controller: Controller | None = None,
    config: RolloutConfig | None = None,
    seed: int = 0,
) -> Drive:
    """One drive; see :func:`drive_many`.

    Args:
        world: or a course, from which a world is made with ``seed``.
        driver: a policy, or a ExpertConfig for the expert.
        controller: follows the policy's plans; the expert needs none.
    """
    if controller is not None:
        return drive_many([world], driver, lambda: controller, config, seed)[0]
    return drive_many([world], driver, None, config, seed)[0]


def drive_many(
    worlds: Sequence[World | Course],
    driver: Policy | ExpertConfig,
    make_controller: Callable[[], Controller] | None = None,
    config: RolloutConfig | Sequence[RolloutConfig] | None = None,
    seed: int = 0,
    progress: Callable[[float], Any] | None = None,
) -> list[Drive]:
    """Drive several karts in lockstep, each in a world of its own.

    Args:
        worlds: one per kart; a course becomes a world with ``seed``.
        driver: the policy all of them ask (one ``plan_many`` per instant), or a ExpertConfig.
        make_controller: a new controller per kart.
        config: for all, or one per kart; ``replan_s`` must be the same for all.
        progress: called about every simulated second with the mean share of the asked laps driven.

    Returns:
        a Drive per world, in order.

    Raises:
        MonoError: a policy without controllers, or configs that do not fit.
    """
    configs = list(config) if isinstance(config, Sequence) else [config or RolloutConfig()] * len(worlds)
    policy = None if isinstance(driver, ExpertConfig) else driver
    if len(configs) != len(worlds) or len({c.replan_s for c in configs}) > 1:
        raise MonoError(f"{len(configs)} configs for {len(worlds)} karts", "one per kart, all with one replan_s")
    if policy is not None and make_controller is None:
        raise MonoError(
            "a policy without a controller",
            "a controller that follows its plans",
            "pass closed_loop.control.controller.TrackingController()",
        )
    karts = []
    for world, one in zip(worlds, configs):
        placed = World(world, seed) if isinstance(world, Course) else world
        follower = None if policy is None or make_controller is None else make_controller()
        expert = ExpertPool(driver) if isinstance(driver, ExpertConfig) else None
        karts.append(_Kart(placed, one, _views(policy, one), follower, expert))
    if not karts:
        return []
    steps_per_frame = round(STEP_S * karts[0].world.config.physics_hz)
    replan_frames = round(configs[0].replan_s / STEP_S)
    step = 0
    while any(kart.end is None for kart in karts):
        running = [kart for kart in karts if kart.end is None]
        if step % steps_per_frame == 0:
            for kart in running:
                kart.see()
            frame = step // steps_per_frame
            due = [kart for kart in running if frame % replan_frames == 0 or kart.unplanned]
            if policy is not None and due:
                for kart, plan in zip(due, policy.plan_many([kart.observe() for kart in due])):
                    kart.take(plan)
            if progress is not None and frame % 10 == 0:
                progress(float(np.mean([min(1.0, kart.share) for kart in karts])))
        for kart in running:
            kart.advance()
        step += 1
    return [kart.result() for kart in karts]


def _views(policy: Policy | None, config: RolloutConfig) -> tuple[tuple[Camera, ...], int]:
    """Cameras to render and frames of each, from the config or the policy's camera mode."""
    if policy is None:
        return (), 0
    mode = getattr(policy, "cameras", "mono")
    names = config.cameras or cameras_of(mode if isinstance(mode, str) else "mono")
    count = config.frames or frames_of(mode)
    cameras = []
    for name in names:
        camera = CAMERAS[name]
        width, height = config.image_px or (camera.width_px, camera.height_px)
        pitch = camera.pitch_rad + config.pitch_rad
        cameras.append(replace(camera, width_px=width, height_px=height, pitch_rad=pitch))
    return tuple(cameras), count


class _Kart:
    """One kart under way: what it has seen, which plan it follows, what has been written down."""

    def __init__(
        self,
        world: World,
        config: RolloutConfig,
        views: tuple[tuple[Camera, ...], int],
        controller: Controller | None,
        experts: ExpertPool | None,
    ) -> None:
        self.world, self.config, self.controller, self.experts = world, config, controller, experts
        self.cameras, self.frames = views
        world.reset(config.start_s_m, config.start_lateral_m, config.start_heading_rad, config.start_speed_mps)
        self.start_s = world.time_s
        self.physics_s = 1.0 / world.config.physics_hz
        crawl = world.course.length_m * config.laps / 0.75
        self.max_time_s = config.max_time_s if config.max_time_s is not None else 30.0 + crawl
        self.end: str | None = None
        self.command = Command(0.0, 0.0)
        self.next_control_s = self.next_record_s = 0.0
        self.rows: list[tuple[float, ...]] = []
        self.plans: list[DrivenPlan] = []
        self.events: list[DriveEvent] = []
        self._begin()

    def _begin(self) -> None:
        """A start, or a start again after being put back: nothing has been seen or planned."""
        self.seen: list[tuple[float, FloatArray]] = []
        self.pictures: dict[float, dict[str, Image]] = {}
        self.current: DrivenPlan | None = None
        self.waiting: list[DrivenPlan] = []
        self.unplanned = True
        self.off_since_s: float | None = None
        self.slow_since_s: float | None = None
        self.start_speed_mps = self.world.speed_mps
        reset = getattr(self.controller, "reset", None)
        if callable(reset):
            reset()

    @property
    def now_s(self) -> float:
        return self.world.time_s - self.start_s

    @property
    def share(self) -> float:
        """Part of the asked laps driven."""
        if not self.world.course.closed:
            return self.world.station_m / self.world.course.length_m
        return self.world.progress / self.config.laps

    # ------------------------------------------------------------ seeing and planning

    def see(self) -> None:
        """A camera instant: remember where it was; pictures are drawn only when a plan asks for them."""
        self.seen = [*self.seen, (self.now_s, self.world.pose)][-HISTORY_STEPS:]

    def observe(self) -> Observation:
        """What the policy is shown now."""
        stamp_s, pose = self.seen[-1]
        poses = [place for _, place in self.seen]
        first = poses[0]
        back = self.start_speed_mps * STEP_S * np.array([np.cos(first[2]), np.sin(first[2]), 0.0])
        missing = HISTORY_STEPS - len(poses)
        history = np.array([first - back * k for k in range(missing, 0, -1)] + poses)
        shown = self.seen[-max(1, self.frames) :]
        for at, place in shown:
            if at not in self.pictures:
                self.pictures[at] = {c.name: self.world.scene.render(c, place) for c in self.cameras}
        self.pictures = {at: self.pictures[at] for at, _ in shown}
        frames = {c.name: np.stack([self.pictures[at][c.name] for at, _ in shown]) for c in self.cameras}
        return Observation(round(stamp_s * 1e9), frames, to_ego(history, pose), self.world.speed_mps)

    def take(self, plan: Plan) -> None:
        """A plan has been made; it is used after the latency, the first one at once."""
        stamp_s, pose = self.seen[-1]
        poses = np.asarray(plan.poses, np.float64)
        if poses.shape != (FUTURE_STEPS, 3) or not np.isfinite(poses).all():
            self._note("bad_plan")
            return
        usable_s = stamp_s if self.unplanned else stamp_s + self.config.latency_s
        frame = self.pictures[stamp_s].get("front") if self.config.keep_frames and self.pictures else None
        made = DrivenPlan(
            stamp_s, usable_s, pose, poses, to_map(poses, pose), plan.reasoning, dict(plan.timings_ms), frame
        )
        self.plans.append(made)
        self.waiting.append(made)
        self.unplanned = False

    # ------------------------------------------------------------ driving

    def advance(self) -> None:
        """One physics step, with control, records and rules where they are due."""
        now = self.now_s
        if now >= self.next_control_s - 1e-9:
            self.next_control_s += CONTROL_S
            self._control(now)
        if now >= self.next_record_s - 1e-9:
            self.next_record_s += self.config.record_s
            self._record(now)
            self._rules(now)
        if self.end is None:
            self.world.step(self.command)

    def _control(self, now: float) -> None:
        world = self.world
        if self.experts is not None:
            self.command = self.experts.for_course(world.course).command(world.state, world.time_s, world.disturbance)
            return
        while self.waiting and self.waiting[0].usable_s <= now + 1e-9:
            self.current = self.waiting.pop(0)
        plan = self.current
        assert self.controller is not None
        self.command = self.controller.command(
            None if plan is None else plan.poses_map,
            now if plan is None else plan.stamp_s,
            now,
            world.pose,
            world.speed_mps,
        )

    def _record(self, now: float) -> None:
        state, world = self.world.state, self.world
        self.beyond_m = world.beyond_edge_m
        self.rows.append(
            (
                now,
                state.x_m,
                state.y_m,
                state.yaw_rad,
                state.speed_mps,
                self.command.steer_rad,
                self.command.accel_mps2,
                state.steer_rad,
                world.station_m,
                world.lateral_m,
                self.beyond_m,
                float(world.disturbance is not None),
            )
        )

    def _rules(self, now: float) -> None:
        """Laps, off-track and standstill, looked at with every record."""
        c, world = self.config, self.world
        if self.beyond_m > 0.0:
            if self.off_since_s is None:
                self.off_since_s = now
                self._note("off_track")
                if sum(event.what == "off_track" for event in self.events) >= c.max_off_track:
                    self.end = "too often off track"
                    return
            if self.beyond_m > c.set_back_beyond_m or now - self.off_since_s > c.set_back_after_s:
                self._set_back("set_back")
        else:
            self.off_since_s = None
        if world.speed_mps >= c.stuck_speed_mps:
            self.slow_since_s = None
        elif self.slow_since_s is None:
            self.slow_since_s = now
        elif now - self.slow_since_s > c.stuck_s and not world.finished:
            self._set_back("stuck")
        if world.finished:
            self.end = "end of course"
        elif world.course.closed and world.progress_m >= c.laps * world.course.length_m:
            self.end = "laps done"
        elif now >= self.max_time_s:
            self.end = "time over"

    def _set_back(self, what: str) -> None:
        self._note(what)
        self.world.set_back(self.config.set_back_speed_mps)
        if self.experts is not None:
            self.experts.for_course(self.world.course).reset()
        self._begin()

    def _note(self, what: str) -> None:
        world = self.world
        self.events.append(
            DriveEvent(what, self.now_s, world.station_m, world.lateral_m, world.state.x_m, world.state.y_m)
        )

    def result(self) -> Drive:
        table = np.array(self.rows)
        world, end = self.world, self.end or "time over"
        laps = world.progress if world.course.closed else world.station_m / world.course.length_m
        return Drive(
            course=world.course,
            t_s=table[:, 0],
            poses=table[:, 1:4],
            speed_mps=table[:, 4],
            steer_rad=table[:, 5],
            accel_mps2=table[:, 6],
            wheel_rad=table[:, 7],
            station_m=table[:, 8],
            lateral_m=table[:, 9],
            beyond_edge_m=table[:, 10],
            disturbed=table[:, 11] > 0.5,
            plans=tuple(self.plans),
            events=tuple(self.events),
            laps=float(laps),
            finished=end in ("laps done", "end of course"),
            end=end,
        )
