"""Closed-loop drives inside one process: no ROS, no clock on the wall, the same numbers for the same seed.

Physics runs at 100 Hz, the controller at 40 Hz, the cameras at 10 Hz. A plan made from the frame at t is used
from t + latency on, as it would be in a real kart. Several karts drive in lockstep, so that a policy can plan
for all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from closed_loop.simulator.camera import FOUR_CAMERAS, Camera
from closed_loop.simulator.course import Course
from closed_loop.simulator.teacher import TeacherConfig, TeacherPool
from closed_loop.simulator.vehicle import Command
from closed_loop.simulator.world import World
from collector.errors import MonoError
from collector.poses import to_ego, to_map
from finetune.policy import FRAMES_PER_CAMERA, FUTURE_STEPS, HISTORY_STEPS, STEP_S, Observation, Plan, Policy, cameras_of

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

CONTROL_S = 0.025
_CAMERAS: dict[str, Camera] = {camera.name: camera for camera in FOUR_CAMERAS}


class Controller(Protocol):
    """Follows a plan; ``closed_loop.controller.TrackingController`` is one."""

    def command(
        self, plan_poses_map: FloatArray | None, plan_stamp_s: float, now_s: float, pose_map: FloatArray,
        speed_mps: float,
    ) -> Command: ...


@dataclass(frozen=True)
class RolloutConfig:
    """How a drive runs.

    Attributes:
        laps: the drive ends after so many (an open course ends at its end).
        max_time_s: simulated time at which it ends at the latest; None allows twice the time of a crawl.
        replan_s: time between plans, a multiple of 0.1 s.
        latency_s: from the frame to the use of its plan. The first plan after a start is in hand at once.
        start_s_m, start_lateral_m, start_heading_rad, start_speed_mps: where the drive begins.
        set_back_beyond_m, set_back_after_s: off the road this far, or this long, the kart is put back.
        set_back_speed_mps: with this speed.
        max_off_track: the drive ends at this many off-track events.
        stuck_speed_mps, stuck_s: a kart slower than this for so long is put back too.
        cameras: names to render; None takes those of the policy's camera mode (mono when it names none).
        frames: frames per camera; None takes what the mode looks at.
        image_px: (width, height) of the pictures; None is 640 x 360.
        pitch_rad: added to every camera's pitch, positive looks down.
        record_s: time between the samples of the result.
        keep_frames: keep the front picture of every plan (memory!).
    """

    laps: float = 1.0
    max_time_s: float | None = None
    replan_s: float = 0.2
    latency_s: float = 0.15
    start_s_m: float = 0.0
    start_lateral_m: float = 0.0
    start_heading_rad: float = 0.0
    start_speed_mps: float = 2.0
    set_back_beyond_m: float = 1.0
    set_back_after_s: float = 2.0
    set_back_speed_mps: float = 1.0
    max_off_track: int = 5
    stuck_speed_mps: float = 0.2
    stuck_s: float = 5.0
    cameras: tuple[str, ...] | None = None
    frames: int | None = None
    image_px: tuple[int, int] | None = None
    pitch_rad: float = 0.0
    record_s: float = 0.05
    keep_frames: bool = False

    def __post_init__(self) -> None:
        steps = self.replan_s / STEP_S
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
            raise MonoError(f"replan_s = {self.replan_s}", "a positive multiple of 0.1 s (one camera frame)")
        if not 0.0 <= self.latency_s < FUTURE_STEPS * STEP_S:
            raise MonoError(f"latency_s = {self.latency_s}", "0 to 6.4 s")
        unknown = sorted(set(self.cameras or ()) - set(_CAMERAS))
        if unknown:
            raise MonoError(f"cameras {unknown}", "some of " + ", ".join(_CAMERAS))


@dataclass(frozen=True)
class DriveEvent:
    """Something that happened: ``off_track`` (a corner crossed the edge), ``set_back``, ``stuck``, ``bad_plan``."""

    what: str
    t_s: float
    station_m: float
    lateral_m: float
    x_m: float
    y_m: float


@dataclass(frozen=True, eq=False)
class DrivenPlan:
    """A plan as it was used.

    Attributes:
        stamp_s: time of its frame; usable_s: from when on it was followed.
        pose_map: (3,) the kart at ``stamp_s``.
        poses: (64, 3) in the kart's frame then; ``poses_map`` the same in the map.
        frame: the front picture, where frames were kept.
    """

    stamp_s: float
    usable_s: float
    pose_map: FloatArray
    poses: FloatArray
    poses_map: FloatArray
    reasoning: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
    frame: Image | None = None


@dataclass(frozen=True, eq=False)
class Drive:
    """One drive, sampled every ``record_s``.

    Attributes:
        course: where it lay.
        t_s, speed_mps, steer_rad, accel_mps2, wheel_rad, station_m, lateral_m, beyond_edge_m: (T,) time, speed,
            the two commands, the applied tyre angle, place along and beside the reference line, and how far
            the outline reaches over the edge (negative: on the road).
        poses: (T, 3) base_link in the map.
        disturbed: (T,) the teacher was erring on purpose.
        plans, events: in order of time.
        laps: laps driven, with fraction. finished: all laps that were asked for.
        end: why it ended: ``laps done``, ``end of course``, ``time over`` or ``too often off track``.
    """

    course: Course
    t_s: FloatArray
    poses: FloatArray
    speed_mps: FloatArray
    steer_rad: FloatArray
    accel_mps2: FloatArray
    wheel_rad: FloatArray
    station_m: FloatArray
    lateral_m: FloatArray
    beyond_edge_m: FloatArray
    disturbed: NDArray[np.bool_]
    plans: tuple[DrivenPlan, ...]
    events: tuple[DriveEvent, ...]
    laps: float
    finished: bool
    end: str

    @property
    def off_track_count(self) -> int:
        """Times a corner of the kart crossed the road's edge."""
        return sum(event.what == "off_track" for event in self.events)

    @property
    def recovered_s(self) -> tuple[float, ...]:
        """Times of the first sample after each time the kart was put back: the jump before it is no driving."""
        back = [event.t_s for event in self.events if event.what in ("set_back", "stuck")]
        after = [int(np.searchsorted(self.t_s, t + 1e-9)) for t in back]
        return tuple(float(self.t_s[i]) for i in after if i < len(self.t_s))


def drive(
    world: World | Course, driver: Policy | TeacherConfig, controller: Controller | None = None,
    config: RolloutConfig | None = None, seed: int = 0,
) -> Drive:
    """One drive; see :func:`drive_many`.

    Args:
        world: or a course, from which a world is made with ``seed``.
        driver: a policy, or a TeacherConfig for the teacher.
        controller: follows the policy's plans; the teacher needs none.
    """
    if controller is not None:
        return drive_many([world], driver, lambda: controller, config, seed)[0]
    return drive_many([world], driver, None, config, seed)[0]


def drive_many(
    worlds: Sequence[World | Course], driver: Policy | TeacherConfig,
    make_controller: Callable[[], Controller] | None = None,
    config: RolloutConfig | Sequence[RolloutConfig] | None = None, seed: int = 0,
    progress: Callable[[float], Any] | None = None,
) -> list[Drive]:
    """Drive several karts in lockstep, each in a world of its own.

    Args:
        worlds: one per kart; a course becomes a world with ``seed``.
        driver: the policy all of them ask (one ``plan_many`` per instant), or a TeacherConfig.
        make_controller: a new controller per kart.
        config: for all, or one per kart; ``replan_s`` must be the same for all.
        progress: called about every simulated second with the mean share of the asked laps driven.

    Returns:
        a Drive per world, in order.

    Raises:
        MonoError: a policy without controllers, or configs that do not fit.
    """
    configs = list(config) if isinstance(config, Sequence) else [config or RolloutConfig()] * len(worlds)
    policy = None if isinstance(driver, TeacherConfig) else driver
    if len(configs) != len(worlds) or len({c.replan_s for c in configs}) > 1:
        raise MonoError(f"{len(configs)} configs for {len(worlds)} karts", "one per kart, all with one replan_s")
    if policy is not None and make_controller is None:
        raise MonoError("a policy without a controller", "a controller that follows its plans",
                        "pass closed_loop.controller.TrackingController()")
    karts = []
    for world, one in zip(worlds, configs):
        placed = World(world, seed) if isinstance(world, Course) else world
        follower = None if policy is None or make_controller is None else make_controller()
        teacher = TeacherPool(driver) if isinstance(driver, TeacherConfig) else None
        karts.append(_Kart(placed, one, _views(policy, one), follower, teacher))
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
    count = config.frames or (1 if mode == "mono" else FRAMES_PER_CAMERA)
    cameras = []
    for name in names:
        camera = _CAMERAS[name]
        width, height = config.image_px or (camera.width_px, camera.height_px)
        sized = camera.sized(width, height)
        cameras.append(
            sized if config.pitch_rad == 0.0 else Camera(
                sized.name, sized.x_m, sized.y_m, sized.z_m, sized.yaw_rad, sized.pitch_rad + config.pitch_rad,
                sized.hfov_rad, width, height,
            )
        )
    return tuple(cameras), count


class _Kart:
    """One kart under way: what it has seen, which plan it follows, what has been written down."""

    def __init__(
        self, world: World, config: RolloutConfig, views: tuple[tuple[Camera, ...], int],
        controller: Controller | None, teachers: TeacherPool | None,
    ) -> None:
        self.world, self.config, self.controller, self.teachers = world, config, controller, teachers
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
        shown = self.seen[-max(1, self.frames):]
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
        if self.teachers is not None:
            self.command = self.teachers.for_course(world.course).command(world.state, world.time_s, world.disturbance)
            return
        while self.waiting and self.waiting[0].usable_s <= now + 1e-9:
            self.current = self.waiting.pop(0)
        plan = self.current
        assert self.controller is not None
        self.command = self.controller.command(
            None if plan is None else plan.poses_map, now if plan is None else plan.stamp_s, now, world.pose,
            world.speed_mps,
        )

    def _record(self, now: float) -> None:
        state, world = self.world.state, self.world
        self.beyond_m = world.beyond_edge_m
        self.rows.append(
            (now, state.x_m, state.y_m, state.yaw_rad, state.speed_mps, self.command.steer_rad,
             self.command.accel_mps2, state.steer_rad, world.station_m, world.lateral_m, self.beyond_m,
             float(world.disturbance is not None))
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
        if self.teachers is not None:
            self.teachers.for_course(self.world.course).reset()
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
            world.course, table[:, 0], table[:, 1:4], *(table[:, k] for k in range(4, 11)), table[:, 11] > 0.5,
            tuple(self.plans), tuple(self.events), float(laps), end in ("laps done", "end of course"), end,
        )
