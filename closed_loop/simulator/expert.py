"""The expert: a driver that knows the course, as the teams' own controllers do, and can err on purpose.

It looks ahead on a chosen line from where the kart will be when its command takes effect (pure pursuit,
R. C. Coulter, CMU-RI-TR-92-01), and keeps a speed that the bends, its throttle and its brakes allow.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from closed_loop.course.course import Course
from closed_loop.simulator.vehicle import VehicleState, actuate
from collector.geometry.poses import FloatArray, advance
from collector.ros.parameters import RoadParameters
from collector.vehicle.kart import Command
from collector.vehicle.model import VehicleModel


@dataclass(frozen=True)
class ExpertConfig:
    """How the expert drives. Lengths in metres, speeds in m/s, accelerations in m/s^2."""

    max_speed_mps: float = RoadParameters.max_speed_mps
    min_speed_mps: float = 1.0
    lateral_accel_mps2: float = 3.0
    accel_mps2: float = 1.0
    decel_mps2: float = 1.5
    look_ahead_m: float = 1.0
    look_ahead_s: float = 0.25
    approach_slope: float = 0.35  # steepest return to the line, metres aside per metre ahead
    speed_gain: float = 1.5
    vehicle: VehicleModel = field(default_factory=VehicleModel)


@dataclass(frozen=True)
class Disturbance:
    """What is done otherwise on purpose: a line beside the centreline, another speed, a hand that shakes, a brake."""

    lateral_m: float = 0.0
    speed_scale: float = 1.0
    steer_rad: float = 0.0
    most_accel_mps2: float = math.inf


@dataclass(frozen=True)
class DisturbanceConfig:
    """What may be drawn for a disturbed phase; ranges are (low, high), others are symmetric limits."""

    max_lateral_m: float = 1.6
    speed_scale: tuple[float, float] = (0.6, 1.15)
    duration_s: tuple[float, float] = (0.6, 2.2)
    steer_noise_rad: float = 0.03
    edge_margin_m: float = 0.25


@dataclass(frozen=True)
class DisturbedPhase:
    """One drawn phase: between two times the expert tracks the wrong line, its steering shaking slowly."""

    start_s: float
    end_s: float
    lateral_m: float
    speed_scale: float
    noise_rad: tuple[float, ...]
    noise_step_s: float = 0.25

    def at(self, time_s: float) -> Disturbance | None:
        """The disturbance at a time, None outside the phase."""
        if not self.start_s <= time_s < self.end_s:
            return None
        knots = self.start_s + self.noise_step_s * np.arange(len(self.noise_rad))
        return Disturbance(self.lateral_m, self.speed_scale, float(np.interp(time_s, knots, self.noise_rad)))


def draw_phase(
    rng: np.random.Generator, start_s: float, course: Course, vehicle: VehicleModel, config: DisturbanceConfig
) -> DisturbedPhase:
    """A disturbed phase from ``start_s``; its line leaves the kart's side ``edge_margin_m`` from the edge."""
    duration = rng.uniform(*config.duration_s)
    room = max(0.0, course.half_width_m - 0.5 * vehicle.width_m - config.edge_margin_m)
    reach = min(config.max_lateral_m, room)
    noise = config.steer_noise_rad * rng.standard_normal(int(duration / 0.25) + 2)
    return DisturbedPhase(
        start_s,
        start_s + duration,
        float(rng.uniform(-reach, reach)),
        float(rng.uniform(*config.speed_scale)),
        tuple(float(v) for v in noise),
    )


def speed_profile(course: Course, config: ExpertConfig) -> FloatArray:
    """(N,) highest allowed speed at each point: bends first, then brakes (backwards) and throttle (forwards).

    An open course ends at a standstill.
    """
    curvature = np.abs(course.curvature_1pm)
    speed = np.sqrt(config.lateral_accel_mps2 / np.maximum(curvature, 1e-6))
    speed = speed.clip(config.min_speed_mps, config.max_speed_mps)
    count = len(speed)
    step = np.diff(course.s_m, append=course.length_m if course.closed else course.s_m[-1])
    if not course.closed:
        speed[-1] = 0.0
    # The second time round a closed course knows what lies behind the seam.
    pairs = [(index % count, (index + 1) % count) for index in range(2 * count if course.closed else count - 1)]
    for i, j in reversed(pairs):
        speed[i] = min(speed[i], np.sqrt(speed[j] ** 2 + 2.0 * config.decel_mps2 * step[i]))
    for i, j in pairs if course.closed else ():
        speed[j] = min(speed[j], np.sqrt(speed[i] ** 2 + 2.0 * config.accel_mps2 * step[i]))
    return speed


class Expert:
    """Drives one kart on one course; remembers its own recent commands to know what is under way."""

    def __init__(self, course: Course, config: ExpertConfig | None = None) -> None:
        self.course, self.config = course, config or ExpertConfig()
        self.speed_mps = speed_profile(course, self.config)
        self._sent: deque[tuple[float, float]] = deque()
        self._station_m: float | None = None

    def reset(self) -> None:
        """Forget the past: the kart has been placed elsewhere."""
        self._sent.clear()
        self._station_m = None

    def twin(self) -> Expert:
        """Another driver who remembers the same commands."""
        twin = copy.copy(self)
        twin._sent = deque(self._sent)  # noqa: SLF001 - one of us
        return twin

    def command(self, state: VehicleState, t_s: float, disturbance: Disturbance | None = None) -> Command:
        """What to do now, by the applied tyre angle in ``state``; ``disturbance`` is an error to make on purpose.

        ``t_s`` is a clock that never goes back between resets.
        """
        c, wrong = self.config, disturbance or Disturbance()
        station = self._locate(state)
        x, y, yaw = self._predict(state, t_s)
        foot_m, lateral, line_yaw, _ = self.course.follow(x, y, station)
        look = c.look_ahead_m + c.look_ahead_s * state.speed_mps
        error, step = lateral - wrong.lateral_m, c.approach_slope * look
        left_over = error - min(max(error, -step), step)
        ahead = foot_m + look * max(0.2, math.cos(yaw - line_yaw))
        goal_x, goal_y, _ = self.course.pose_at(ahead, wrong.lateral_m + left_over).tolist()
        dx, dy = goal_x - x, goal_y - y
        aside = -math.sin(yaw) * dx + math.cos(yaw) * dy
        curvature = 2.0 * aside / max(dx * dx + dy * dy, 0.25)
        steer = math.atan(curvature * c.vehicle.wheelbase_m) / c.vehicle.steering_gain + wrong.steer_rad
        steer = min(max(steer, -c.vehicle.max_steer_rad), c.vehicle.max_steer_rad)
        self.note(t_s, steer)
        return Command(steer, min(self._throttle(state, station, wrong.speed_scale), wrong.most_accel_mps2))

    def note(self, t_s: float, steer_rad: float) -> None:
        """Remember a steering command that was given, by this driver or by another whose place it may have to take."""
        limit, oldest_s = self.config.vehicle.max_steer_rad, t_s - (self.config.vehicle.dead_time_s + 0.1)
        self._sent.append((t_s, min(max(steer_rad, -limit), limit)))
        while len(self._sent) > 1 and self._sent[1][0] < oldest_s:
            self._sent.popleft()

    def _locate(self, state: VehicleState) -> float:
        """Station of the kart; near the last one where there is one, so that a close stretch cannot take it."""
        if self._station_m is not None:
            station, lateral, _, _ = self.course.follow(state.x_m, state.y_m, self._station_m)
            if abs(lateral) < 15.0:
                self._station_m = station
                return station
            self._sent.clear()  # placed elsewhere without a reset
        self._station_m = float(self.course.project((state.x_m, state.y_m)).s_m)
        return self._station_m

    def _predict(self, state: VehicleState, t_s: float) -> tuple[float, float, float]:
        """Pose at which a command given now takes effect: own commands under way replayed."""
        p = self.config.vehicle
        pose, steer = (state.x_m, state.y_m, state.yaw_rad), state.steer_rad
        horizon, step = p.dead_time_s + 0.5 * p.lag_s, 0.025
        at = 0.0
        while at < horizon - 1e-9:
            span = min(step, horizon - at)
            given = [angle for sent, angle in self._sent if sent + p.dead_time_s <= t_s + at + 1e-9]
            goal = given[-1] * p.steering_gain if given else steer
            new = actuate(steer, goal, p, span)
            pose = advance(pose, state.speed_mps * span, math.tan(0.5 * (steer + new)) / p.wheelbase_m)
            steer, at = new, at + span
        return pose

    def _throttle(self, state: VehicleState, station_m: float, scale: float) -> float:
        """Follow the speed profile: its own slope as feed-forward, the difference as correction."""
        c = self.config
        lead = state.speed_mps * c.vehicle.accel_lag_s
        here, ahead = (float(v) for v in self.course.at([station_m + lead, station_m + lead + 0.5], self.speed_mps))
        slope = (ahead**2 - here**2) if self.course.closed or ahead > 0.0 else 0.0  # v dv/ds over 0.5 m
        wanted = scale * scale * slope + c.speed_gain * (scale * here - state.speed_mps)
        return min(max(wanted, -c.vehicle.max_decel_mps2), c.accel_mps2)


class ExpertPool:
    """One expert per course, made when first needed: worlds that change courses ask it at every command."""

    def __init__(self, config: ExpertConfig | None = None) -> None:
        self.config = config or ExpertConfig()
        self._experts: dict[int, Expert] = {}
        self._current: Expert | None = None

    def for_course(self, course: Course) -> Expert:
        """The expert of a course, its memory cleared whenever the course changes."""
        expert = self._experts.get(id(course))
        if expert is None or expert.course is not course:
            expert = self._experts[id(course)] = Expert(course, self.config)
        if expert is not self._current:
            expert.reset()
            self._current = expert
        return expert
