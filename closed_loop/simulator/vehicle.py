"""The kart: a kinematic bicycle behind an actuator with gain, dead time, lag and limits.

The reference point is ``base_link``, the middle of the rear axle.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.poses import FloatArray, advance, wrap_angle
from collector.vehicle.model import VehicleModel


@dataclass(frozen=True)
class VehicleState:
    """Pose in the map, speed along x, and what the actuators currently apply."""

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    speed_mps: float = 0.0
    steer_rad: float = 0.0
    accel_mps2: float = 0.0

    @property
    def pose(self) -> FloatArray:
        """(3,) [x, y, yaw] in the map."""
        return np.array([self.x_m, self.y_m, self.yaw_rad])


@dataclass
class Vehicle:
    """The kart in motion; ``state`` is where it is, ``step`` moves it.

    Speed never goes below zero. Commands beyond the limits are clipped, as the simulator of the Challenge
    does; commands that are not numbers count as straight ahead and full braking.
    """

    params: VehicleModel = field(default_factory=VehicleModel)
    state: VehicleState = field(default_factory=VehicleState)
    _time_s: float = 0.0
    _pending: deque[tuple[float, float]] = field(default_factory=deque)
    _arrived_rad: float = 0.0

    def place(self, pose: ArrayLike, speed_mps: float, steer_rad: float = 0.0) -> None:
        """Put the kart somewhere, with its wheels at ``steer_rad`` (applied) and no command under way."""
        x, y, yaw = (float(v) for v in np.asarray(pose, np.float64))
        self.state = VehicleState(x, y, float(wrap_angle(yaw)), max(0.0, float(speed_mps)), steer_rad, 0.0)
        self._pending.clear()
        self._arrived_rad = steer_rad

    def step(self, steer_cmd_rad: float, accel_cmd_mps2: float, dt_s: float) -> VehicleState:
        """Advance by ``dt_s`` under a command; returns the new state."""
        p, old = self.params, self.state
        if not (math.isfinite(steer_cmd_rad) and math.isfinite(accel_cmd_mps2)):
            steer_cmd_rad, accel_cmd_mps2 = 0.0, -p.max_decel_mps2
        wanted = min(max(steer_cmd_rad, -p.max_steer_rad), p.max_steer_rad) * p.steering_gain
        self._pending.append((self._time_s + p.dead_time_s, wanted))
        steer, left_s = old.steer_rad, dt_s
        while self._pending and self._pending[0][0] < self._time_s + dt_s - 1e-9:
            arrives_s, arrived_rad = self._pending.popleft()
            if arrives_s > self._time_s + 1e-9:  # within the step
                before_s = arrives_s - self._time_s - (dt_s - left_s)
                steer = actuate(steer, self._arrived_rad, p, before_s)
                left_s -= before_s
            self._arrived_rad = arrived_rad
        steer = actuate(steer, self._arrived_rad, p, left_s)
        accel_goal = min(max(accel_cmd_mps2, -p.max_decel_mps2), p.max_accel_mps2)
        if old.speed_mps <= 0.0 and accel_goal < p.sticks_below_mps2:
            accel_goal = min(accel_goal, 0.0)
        accel = old.accel_mps2 + (accel_goal - old.accel_mps2) * _share(dt_s, p.accel_lag_s)
        speed = max(0.0, old.speed_mps + accel * dt_s)
        x, y, yaw = advance(
            (old.x_m, old.y_m, old.yaw_rad),
            0.5 * (old.speed_mps + speed) * dt_s,
            math.tan(0.5 * (old.steer_rad + steer)) / p.wheelbase_m,
        )
        self._time_s += dt_s
        self.state = VehicleState(x, y, math.remainder(yaw, math.tau), speed, steer, accel)
        return self.state


def actuate(steer_rad: float, goal_rad: float, params: VehicleModel, dt_s: float) -> float:
    """Applied tyre angle after ``dt_s``: first-order approach to the goal, limited in rate."""
    change = (goal_rad - steer_rad) * _share(dt_s, params.lag_s)
    limit = params.steer_rate_radps * dt_s
    return steer_rad + min(max(change, -limit), limit)


def _share(dt_s: float, lag_s: float) -> float:
    """Part of the way a first-order lag goes in ``dt_s``."""
    return 1.0 - math.exp(-dt_s / lag_s) if lag_s > 0.0 else 1.0


def yaw_rate_radps(state: VehicleState, params: VehicleModel) -> float:
    """Turn per second of a kinematic bicycle."""
    return state.speed_mps * math.tan(state.steer_rad) / params.wheelbase_m
