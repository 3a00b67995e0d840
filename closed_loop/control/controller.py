"""Follow a plan: where along it by time, how far beside it by place, how hard to steer by what the kart will do.

A plan says where to be at t0 + 0.1 ... t0 + 6.4 s. Speed is therefore read at the present time (a late plan is
used where it is now, not from its start), while steering looks at the path itself, ahead of where the kart will
be when a command given now reaches its wheels.

Pure numpy and clock-free: the caller passes the time. Steering law: pure pursuit on several targets at once. A
path that leaves the rear axle tangentially with curvature k is at y = k d^2 / 2 after d metres (for the exact
circle d^2 is the squared chord); the steered curvature is the least-squares k over the preview distance, which
averages the ripple of a generated plan where a single target would follow it. Wheel angle = atan(wheelbase k).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from closed_loop.control.plan_path import PlanPath
from collector.common.arguments import Arguments, same_as
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray
from collector.vehicle.kart import Command
from collector.vehicle.model import KART, VehicleModel
from finetune.policy import STEP_S

# The internal kart model is stepped this finely when it is carried from one command to the next.
_MODEL_STEP_S = 0.01
# The targets, as parts of the preview distance, and how far behind and ahead of where it should be along its plan the
# kart is sought.
_TARGETS = np.linspace(0.5, 1.0, 8)
_SEARCH_M = 3.0
# A kart this slow stands, and a plan that is faster wants to move off, with so many times what the kart sticks at.
_STANDING_MPS, _TEAR_OFF = 0.1, 1.5
_EARLY_S = 1.5  # a plan of a picture so far in the future is none


@dataclass(frozen=True)
class ControllerConfig(Arguments):
    """The kart as the controller believes it to be, and how it is driven."""

    wheelbase_m: float = KART.wheelbase_m
    max_steer_rad: float = KART.max_steer_rad  # limit of the commanded tyre angle ...
    steer_rate_radps: float = 2.0  # ... and of its change
    steering_gain: float = same_as(VehicleModel, "steering_gain")
    dead_time_s: float = KART.dead_time_s  # a command does nothing for this long
    lag_s: float = KART.lag_s  # first-order lag of the steering after the dead time
    accel_lag_s: float = KART.accel_lag_s  # and of the acceleration
    preview_s: float = 0.40  # steering looks this many seconds ahead at the present speed ...
    preview_min_m: float = 0.9  # ... but never nearer ...
    preview_max_m: float = 4.0  # ... or farther than this
    # Nor nearer than this part of the way that is driven until the next plan: where two plans differ, chasing the new
    # one turns the kart so far aside that the next, made from there, differs the more.
    preview_blind: float = 0.8
    speed_preview_s: float = 0.15  # the plan's speed is read this far ahead of now
    speed_window_s: float = 0.6  # the plan's speed and acceleration are a straight-line fit over this long
    speed_gain_1ps: float = 1.5
    max_accel_mps2: float = 1.0  # limit of the acceleration command ...
    max_brake_mps2: float = -3.0  # ... and of braking, which is negative
    # A standing kart moves off with at least so much, or not at all: AWSIM's does not at 0.3.
    move_off_mps2: float = 0.6
    stop_mps2: float = -2.0  # deceleration without a usable plan
    max_speed_mps: float | None = None  # the plan's speed is cut here; None follows it freely
    # What a plan says is worth less with every metre since its picture: while no newer one can come, the kart drives no
    # farther than this ...
    blind_m: float = 3.0
    # ... and can always stop within what the plan says of its first seconds.
    known_s: float = 3.0
    plan_step_s: float = STEP_S

    @classmethod
    def of(cls, vehicle: VehicleModel, max_speed_mps: float | None = None) -> ControllerConfig:
        """The controller of a vehicle."""
        return cls(
            vehicle.wheelbase_m,
            vehicle.max_steer_rad,
            steering_gain=vehicle.steering_gain,
            dead_time_s=vehicle.dead_time_s,
            lag_s=vehicle.lag_s,
            accel_lag_s=vehicle.accel_lag_s,
            move_off_mps2=max(cls.move_off_mps2, _TEAR_OFF * vehicle.sticks_below_mps2),
            max_speed_mps=max_speed_mps,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = "wheelbase_m steering_gain max_steer_rad steer_rate_radps preview_min_m plan_step_s speed_window_s"
        for name in (*positive.split(), "max_accel_mps2", "blind_m", "known_s"):
            if not getattr(self, name) > 0.0:
                raise MonoError(f"{name} = {getattr(self, name)!r}", "a positive number", f"set {name} above zero")
        for name in ("max_brake_mps2", "stop_mps2"):
            if not getattr(self, name) < 0.0:
                raise MonoError(f"{name} = {getattr(self, name)!r}", "a negative acceleration", f"set {name} below 0")


class TrackingController:
    """Turns the newest plan into steering and acceleration, at any rate.

    It remembers its own commands of the last dead time: what the wheels are about to do is known, and the
    command given now takes over from there.
    """

    def __init__(self, config: ControllerConfig | None = None) -> None:
        self.config = config or ControllerConfig()
        self.reset()

    def reset(self) -> None:
        """Forget the past: a new drive, or a kart that was put elsewhere."""
        self._sent: deque[tuple[float, float]] = deque()
        self._wheel_rad = 0.0
        self._now_s: float | None = None
        self._poses: ArrayLike | None = None
        self._path: PlanPath | None = None

    def command(
        self,
        plan_poses_map: ArrayLike | None,
        plan_stamp_s: float,
        now_s: float,
        pose_map: ArrayLike,
        speed_mps: float,
        driven_m: float | None = None,
        blind_s: float = 0.0,
    ) -> Command:
        """The command for this instant, within the limits. Without a plan for this instant the kart brakes.

        ``plan_poses_map`` are (64, 3) waypoints in the map, or None: the same array until a new plan arrives.
        ``plan_stamp_s`` is their t0 on the clock of ``now_s``, ``pose_map`` (3,) that of the rear axle now.
        ``driven_m`` is how far the kart has driven since t0 (None: as far as planned), ``blind_s`` how old the plan
        will be before another can take its place.

        Raises:
            MonoError: a plan of the wrong shape, or with poses that are not finite.
        """
        config = self.config
        elapsed_s = self._advance(now_s)
        if plan_poses_map is None:
            return self._stop(now_s)
        if self._path is None or plan_poses_map is not self._poses:
            self._poses, self._path = plan_poses_map, PlanPath(plan_poses_map, config.plan_step_s)
        path = self._path
        age_s = now_s - plan_stamp_s
        if not -_EARLY_S <= age_s <= path.t_s[-1]:
            return self._stop(now_s)

        delay_s = config.dead_time_s + config.lag_s
        pose = np.asarray(pose_map, np.float64)
        near_m = path.distance(age_s) if driven_m is None else driven_m
        ahead = self._predict(pose, speed_mps, now_s, delay_s)
        preview_s = max(config.preview_s, config.preview_blind * max(blind_s, age_s))
        preview_m = min(max(preview_s * speed_mps, config.preview_min_m), config.preview_max_m)
        curvature = self._curvature(path, ahead, near_m + delay_s * speed_mps, preview_m)
        wanted_rad = math.atan(config.wheelbase_m * curvature) / config.steering_gain
        steer_rad = self._limited(wanted_rad, elapsed_s)

        target_mps, accel_mps2 = self._speed(path, age_s, path.foot(pose[:2], near_m, _SEARCH_M))
        limit_mps = self._limit(path, max(blind_s, age_s))
        if target_mps > limit_mps:
            target_mps, accel_mps2 = limit_mps, min(accel_mps2, 0.0)
        accel_mps2 += config.speed_gain_1ps * (max(target_mps, 0.0) - speed_mps)
        if speed_mps < _STANDING_MPS < target_mps:
            accel_mps2 = max(accel_mps2, config.move_off_mps2)
        self._sent.append((now_s, steer_rad))
        return Command(steer_rad, min(max(accel_mps2, config.max_brake_mps2), config.max_accel_mps2))

    @property
    def bend_1pm(self) -> float:
        """Curvature of the way that the wheels are believed to take now, left positive."""
        return math.tan(self._wheel_rad) / self.config.wheelbase_m

    def brake(self, now_s: float) -> Command:
        """A controlled stop with the steering held, where there is no plan to steer by."""
        self._advance(now_s)
        return self._stop(now_s)

    def _stop(self, now_s: float) -> Command:
        steer_rad = self._sent[-1][1] if self._sent else 0.0
        self._sent.append((now_s, steer_rad))
        return Command(steer_rad, self.config.stop_mps2)

    def _limited(self, wanted_rad: float, elapsed_s: float) -> float:
        limit, step = self.config.max_steer_rad, self.config.steer_rate_radps * elapsed_s
        last = self._sent[-1][1] if self._sent else 0.0
        return min(max(min(max(wanted_rad, last - step), last + step), -limit), limit)

    def _sent_at(self, t_s: float) -> float:
        """The command in force at a time (zero before the first)."""
        for sent_s, steer_rad in reversed(self._sent):
            if sent_s <= t_s + 1e-9:
                return steer_rad
        return 0.0

    def _wheel_after(self, wheel_rad: float, t_s: float, step_s: float) -> float:
        wanted = self.config.steering_gain * self._sent_at(t_s - self.config.dead_time_s)
        return wanted + (wheel_rad - wanted) * math.exp(-step_s / max(self.config.lag_s, 1e-6))

    def _advance(self, now_s: float) -> float:
        """Carry the believed wheel angle to now; returns the seconds since the last command."""
        if self._now_s is None or now_s < self._now_s or now_s - self._now_s > 1.0:
            # The first call, or a clock that jumped: what was sent before says nothing about these wheels.
            self._sent.clear()
            self._wheel_rad, self._now_s = 0.0, now_s
            return 0.025
        elapsed_s = now_s - self._now_s
        steps = max(1, math.ceil(elapsed_s / _MODEL_STEP_S)) if elapsed_s > 0.0 else 0
        for index in range(steps):
            step_s = elapsed_s / steps
            self._wheel_rad = self._wheel_after(self._wheel_rad, self._now_s + index * step_s, step_s)
        self._now_s = now_s
        while len(self._sent) > 1 and self._sent[1][0] < now_s - self.config.dead_time_s - 0.1:
            self._sent.popleft()
        return elapsed_s

    def _predict(self, pose_map: FloatArray, speed_mps: float, now_s: float, ahead_s: float) -> FloatArray:
        """Pose (3,) after ``ahead_s`` if the command stays what it is (kinematic bicycle)."""
        (x, y, yaw), wheel_rad = pose_map.tolist(), self._wheel_rad
        steps = max(1, math.ceil(ahead_s / (2.0 * _MODEL_STEP_S)))
        step_s = ahead_s / steps
        for index in range(steps):
            wheel_rad = self._wheel_after(wheel_rad, now_s + index * step_s, step_s)
            turn = speed_mps * step_s * math.tan(wheel_rad) / self.config.wheelbase_m
            x += speed_mps * step_s * math.cos(yaw + turn / 2.0)
            y += speed_mps * step_s * math.sin(yaw + turn / 2.0)
            yaw += turn
        return np.array([x, y, yaw])

    def _speed(self, path: PlanPath, age_s: float, foot_m: float) -> tuple[float, float]:
        """Speed and acceleration that the plan has now, or here where that is slower.

        A kart behind its plan is still in the bend that the plan has left; one ahead of it is no reason to hurry.
        """
        config = self.config
        now, here = (
            path.speed(t_s + config.speed_preview_s, config.speed_window_s) for t_s in (age_s, path.time(foot_m))
        )
        return min(now, here)

    def _limit(self, path: PlanPath, blind_s: float) -> float:
        """The speed (m/s) at which a plan may be followed until it is ``blind_s`` old."""
        config = self.config
        limits = [] if config.max_speed_mps is None else [config.max_speed_mps]
        limits.append(config.blind_m / max(blind_s, 1e-3))
        # Braking that begins when the next plan should have come ends within the known: v blind + v^2 / 2a = known.
        brake_mps = -config.stop_mps2 * blind_s
        known_m = path.distance(config.known_s)
        limits.append(math.sqrt(brake_mps**2 - 2.0 * config.stop_mps2 * known_m) - brake_mps)
        return min(limits)

    def _curvature(self, path: PlanPath, pose_map: FloatArray, near_m: float, preview_m: float) -> float:
        """Curvature (1/m) of the arc from the pose that best meets the path ahead."""
        foot_m = path.foot(pose_map[:2], near_m, _SEARCH_M)
        if path.s_m[-1] < 0.1:
            return 0.0  # a plan that stands still has no direction
        ahead_m = foot_m + preview_m * _TARGETS
        offset, yaw = path.at(ahead_m) - pose_map[:2], float(pose_map[2])
        aside_m = math.cos(yaw) * offset[:, 1] - math.sin(yaw) * offset[:, 0]
        chord2 = (offset**2).sum(axis=1)
        return float((2.0 * aside_m * chord2).sum() / max((chord2**2).sum(), 1e-6))
