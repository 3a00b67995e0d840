"""The kart as both the driver and the simulator know it: its measures, its limits, its outline, and what it is told.

The reference point is ``base_link``, the middle of the rear axle. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.poses import FloatArray, to_map


@dataclass(frozen=True)
class Command:
    """What a driver asks for: commanded tyre angle (left positive) and acceleration."""

    steer_rad: float
    accel_mps2: float


@dataclass(frozen=True)
class VehicleParams:
    """The racing kart of the Automotive AI Challenge."""

    wheelbase_m: float = 1.087
    max_steer_rad: float = 0.64
    steering_gain: float = 0.62  # applied over commanded tyre angle; teams identified 0.61 to 0.67
    dead_time_s: float = 0.10  # from a steering command to its effect: transport ...
    lag_s: float = 0.10  # ... then first order
    steer_rate_radps: float = 0.8  # fastest change of the applied angle
    max_accel_mps2: float = 1.5
    max_decel_mps2: float = 3.0
    accel_lag_s: float = 0.12  # first-order lag of the acceleration
    front_m: float = 1.554  # from the rear axle to the front bumper (2.064 m in all)
    rear_m: float = 0.510  # and to the rear bumper
    width_m: float = 1.30  # over the bodywork


KART = VehicleParams()


def footprint(pose: ArrayLike, params: VehicleParams = KART) -> FloatArray:
    """Corners (..., 4, 2) of the kart in the map: front left, front right, rear right, rear left."""
    front, rear, half = params.front_m, -params.rear_m, params.width_m / 2.0
    corners = np.array([[front, half, 0.0], [front, -half, 0.0], [rear, -half, 0.0], [rear, half, 0.0]])
    return to_map(corners, np.asarray(pose, np.float64)[..., None, :])[..., :2]
