"""The last good plan and where the kart is on it: known from odometry, or reckoned from what it was told to do.

A stop follows the road that was seen last, also when nothing says any more where the kart is: for the second or two
that braking takes, speed and wheels are known well enough from the commands. Pure and clock-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from collector.geometry.poses import FloatArray

_HEARD_MPS = 1.5  # a speed that is heard this far from the reckoned one is not believed


@dataclass
class LastPath:
    """``poses_map`` is the plan (64, 3) or None; the rest is the kart's place on it, in the plan's own map."""

    accel_lag_s: float  # of the kart
    poses_map: FloatArray | None = None
    stamp_s: float = 0.0  # of the plan's picture, on the controller's clock ...
    age_s: float = 0.0  # ... vehicle seconds since ...
    driven_m: float = 0.0  # ... and metres
    pose_map: FloatArray | None = None
    speed_mps: float = 0.0
    _accel_mps2: float = 0.0  # what the kart does of what it was told
    _told_mps2: float = 0.0
    _steady_s: float = 0.0

    def plan(self, poses_map: FloatArray, stamp_s: float, age_s: float, driven_m: float) -> None:
        """The plan in use, and how far the kart has come since its picture."""
        self.poses_map, self.stamp_s, self.age_s, self.driven_m = poses_map, stamp_s, age_s, driven_m

    def known(self, pose_map: FloatArray, speed_mps: float, steady_s: float) -> None:
        """Odometry says where the kart is."""
        self.pose_map, self.speed_mps, self._steady_s = pose_map, speed_mps, steady_s
        self._accel_mps2 = self._told_mps2

    def reckon(self, steady_s: float, time_rate: float, bend_1pm: float, heard_mps: float | None = None) -> None:
        """Carry the kart on to now, along the bend of its wheels, with the acceleration it was told.

        ``heard_mps`` is its speed by odometry whose poses are of another map than the plan's.
        """
        seconds = max(steady_s - self._steady_s, 0.0) * time_rate
        self._steady_s = steady_s
        left = math.exp(-seconds / max(self.accel_lag_s, 1e-6))  # of the difference
        self._accel_mps2 += (self._told_mps2 - self._accel_mps2) * (1.0 - left)
        speed_mps = max(0.0, self.speed_mps + self._accel_mps2 * seconds)
        if heard_mps is not None and abs(heard_mps - speed_mps) < _HEARD_MPS:
            speed_mps = max(0.0, heard_mps)
        mean_mps = 0.5 * (self.speed_mps + speed_mps)
        if self.pose_map is not None:
            self.pose_map = carried(self.pose_map, mean_mps, mean_mps * bend_1pm, seconds)
        self.speed_mps = speed_mps
        self.age_s += seconds
        self.driven_m += mean_mps * seconds

    def told(self, accel_mps2: float) -> None:
        """The acceleration that the kart is told now."""
        self._told_mps2 = accel_mps2

    def forget(self) -> None:
        """The kart was put elsewhere: there is no path."""
        self.poses_map, self.speed_mps = None, 0.0


def carried(pose_map: FloatArray, speed_mps: float, yaw_rate_radps: float, seconds: float) -> FloatArray:
    """A pose (3,) some milliseconds later, at constant speed and yaw rate."""
    x, y, yaw = pose_map.tolist()
    turn, step_m = yaw_rate_radps * seconds, speed_mps * seconds
    heading = yaw + turn / 2.0
    return np.array([x + step_m * math.cos(heading), y + step_m * math.sin(heading), yaw + turn])
