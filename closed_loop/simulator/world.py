"""The world: a kart on a course, in steps of ten milliseconds, with its laps, its errors and its cameras.

With several courses and ``episode_s`` the kart is placed on the next course when its time is over, at a drawn place,
beside and askew, sometimes with an expert told to err: data to learn recoveries from. Without, it drives on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from closed_loop.course.course import Course
from closed_loop.simulator.camera import Camera
from closed_loop.simulator.expert import Disturbance, DisturbanceConfig, DisturbedPhase, draw_phase
from closed_loop.simulator.modes import MODES, Mode, ModeName
from closed_loop.simulator.scene import Scene
from closed_loop.simulator.vehicle import Vehicle, VehicleState
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, wrap_angle
from collector.vehicle.kart import Command
from collector.vehicle.model import VehicleModel

# Courses lie side by side in the map, so that a pose belongs to exactly one of them.
COURSE_SPACING_M = 1000.0
# The first sample of an episode has its history after 1.5 s. An error that is long over by then leaves no recovery to
# learn from, and one that goes on after it is learned itself.
EPISODE_ERROR_S = (1.2, 2.0)
# Painted and in use: worlds of one course and one day, such as those of karts side by side, look at one.
_SCENES: WeakValueDictionary[tuple[Course, int], Scene] = WeakValueDictionary()


@dataclass(frozen=True)
class WorldConfig:
    """How the world runs."""

    physics_hz: float = Mode.physics_hz
    vehicle: VehicleModel = field(default_factory=VehicleModel)
    camera_hz: float = Mode.camera_hz
    wild_heading_share: float = Mode.wild_heading_share  # part of the velocity reports whose heading rate is garbage
    episode_s: float | None = None  # None for continuous laps; a time after which the kart is placed anew
    start_lateral_m: float = 1.2  # limit of the drawn start errors of an episode: sideways
    start_heading_rad: float = 0.3  # and of heading
    start_speed_mps: tuple[float, float] = (0.5, 4.5)  # range of the drawn start speed
    disturbed_share: float = 0.85  # part of the episodes that begin with a disturbed phase
    disturb_every_s: float | None = None  # in continuous laps, a disturbed phase begins about so often; None: never
    disturbance: DisturbanceConfig = field(default_factory=lambda: DisturbanceConfig(duration_s=EPISODE_ERROR_S))


def config_of(mode: ModeName, vehicle: VehicleModel | None = None) -> WorldConfig:
    """The world of a mode, and of a kart that a file describes."""
    of = MODES[mode]
    return WorldConfig(of.physics_hz, of.vehicle(vehicle), of.camera_hz, of.wild_heading_share)


class World:
    """One kart, one or more courses, deterministic by seed: it decides looks, drawn starts and disturbances.

    Course i is moved by i x 1000 m along x in the map.

    Raises:
        MonoError: no course at all.
    """

    def __init__(self, courses: Course | Sequence[Course], seed: int = 0, config: WorldConfig | None = None) -> None:
        given = [courses] if isinstance(courses, Course) else list(courses)
        if not given:
            raise MonoError("a world without courses", "at least one course", "name one, e.g. city")
        self.config = config or WorldConfig()
        self.seed = seed
        moved = [course.shifted((COURSE_SPACING_M * index, 0.0)) for index, course in enumerate(given) if index]
        self.courses = (given[0], *moved)  # where they lie in the map
        self.vehicle = Vehicle(self.config.vehicle)
        self._scene: Scene | None = None
        self._rng = np.random.default_rng([11, seed])
        self._steps = self.episode = 0  # the latter counts how often the kart was placed on a next course
        self._phase: DisturbedPhase | None = None
        self._next_phase_s, self._place_time_s = float("inf"), 0.0
        if self.config.episode_s is None:
            self.reset()
        else:
            self._start_episode()

    @property
    def course(self) -> Course:
        """The course the kart is on, where it lies in the map."""
        return self.courses[self.episode % len(self.courses)]

    @property
    def time_s(self) -> float:
        """Simulated time since the world began; placing the kart does not turn it back."""
        return self._steps / self.config.physics_hz

    @property
    def state(self) -> VehicleState:
        """The kart's state in the map."""
        return self.vehicle.state

    @property
    def pose(self) -> FloatArray:
        """(3,) pose of base_link (middle of the rear axle) in the map."""
        return self.vehicle.state.pose

    @property
    def speed_mps(self) -> float:
        """Speed along the kart's x axis."""
        return self.vehicle.state.speed_mps

    @property
    def progress(self) -> float:
        """Laps driven since the kart was placed, with fraction."""
        return self.progress_m / self.course.length_m

    @property
    def lap(self) -> int:
        """Whole laps since the kart was placed."""
        return max(0, int(np.floor(self.progress + 1e-9)))

    @property
    def finished(self) -> bool:
        """The end of an open course has been reached."""
        return not self.course.closed and self.station_m > self.course.length_m - 1.0

    @property
    def disturbance(self) -> Disturbance | None:
        """What the expert is to do wrong now; None outside disturbed phases."""
        return self._phase.at(self.time_s) if self._phase else None

    def reset(self, s_m: float = 0.0, lateral_m: float = 0.0, heading_rad: float = 0.0, speed_mps: float = 0.0) -> None:
        """Place the kart at a station, beside the line and askew; laps and progress start again."""
        self._place(s_m, lateral_m, heading_rad, speed_mps)
        self.progress_m = 0.0  # along the course since then; backwards counts negative
        self._place_time_s = self.time_s
        self._phase = None
        every = self.config.disturb_every_s
        self._next_phase_s = float("inf") if every is None else self.time_s + self._rng.uniform(0.3, 1.0) * every

    def recover(self, speed_mps: float = 0.0) -> None:
        """Put the kart back on the reference line where it is now, along the road; progress is kept."""
        self._place(self.station_m, 0.0, 0.0, speed_mps)
        self._phase = None

    def _place(self, s_m: float, lateral_m: float, heading_rad: float, speed_mps: float) -> None:
        pose = self.course.pose_at(s_m, lateral_m)
        pose[2] = wrap_angle(pose[2] + heading_rad)
        curvature = float(self.course.at(s_m, self.course.curvature_1pm))
        wheels = float(np.arctan(curvature * self.config.vehicle.wheelbase_m))
        self.vehicle.place(pose, speed_mps, wheels if speed_mps > 0.0 else 0.0)
        # Place along the course, and signed distance from its line, positive to the left.
        self.station_m, self.lateral_m = float(self.course.wrap_s(s_m)), lateral_m

    def _start_episode(self) -> None:
        """Drawn start: the errors shrink where the road is narrow."""
        c, rng = self.config, self._rng
        room = max(0.0, self.course.half_width_m - 0.5 * c.vehicle.width_m - 0.3)
        lateral = rng.uniform(-1.0, 1.0) * min(c.start_lateral_m, room)
        heading = rng.uniform(-1.0, 1.0) * c.start_heading_rad
        # An open course keeps room behind and ahead.
        span = (0.0, 1.0) if self.course.closed else (0.05, 0.7)
        self.reset(self.course.length_m * rng.uniform(*span), lateral, heading, rng.uniform(*c.start_speed_mps))
        if rng.random() < c.disturbed_share:
            self._phase = draw_phase(rng, self.time_s, self.course, c.vehicle, c.disturbance)

    def step(self, command: Command) -> VehicleState:
        """One physics step (10 ms) under a command; an episode whose time is over ends with a new start."""
        state = self.vehicle.step(command.steer_rad, command.accel_mps2, 1.0 / self.config.physics_hz)
        self._steps += 1
        station, lateral, _, _ = self.course.follow(state.x_m, state.y_m, self.station_m)
        moved = station - self.station_m
        if self.course.closed:
            moved -= self.course.length_m * round(moved / self.course.length_m)
        self.progress_m += moved
        self.station_m, self.lateral_m = station, lateral
        c = self.config
        if c.episode_s is not None and (self.time_s - self._place_time_s >= c.episode_s - 1e-9 or self.finished):
            self.episode += 1
            self._start_episode()
        elif c.disturb_every_s is not None and self.time_s >= self._next_phase_s:
            self._phase = draw_phase(self._rng, self.time_s, self.course, c.vehicle, c.disturbance)
            self._next_phase_s = self._phase.end_s + self._rng.uniform(0.5, 1.5) * c.disturb_every_s
        return self.vehicle.state

    @property
    def scene(self) -> Scene:
        """The scene of the current course (one is kept; building one takes some tenths of a second)."""
        if self._scene is None or self._scene.course is not self.course:
            self._scene = None  # frees the old texture before the new one is painted
            stream = [23, self.seed, self.episode % len(self.courses)]
            look = self.course, int(np.random.default_rng(stream).integers(2**31))
            self._scene = _SCENES.get(look) or _SCENES.setdefault(look, Scene(*look))
        return self._scene

    def render(self, camera: Camera) -> NDArray[np.uint8]:
        """What a camera sees now: (height, width, 3) uint8 RGB."""
        return self.scene.render(camera, self.pose)
