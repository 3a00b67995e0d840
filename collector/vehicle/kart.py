"""What the kart is told, and its outline; its numbers are in :mod:`collector.vehicle.model`.

The reference point is ``base_link``, the middle of the rear axle. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.poses import FloatArray, to_map
from collector.vehicle.model import KART, VehicleModel


@dataclass(frozen=True)
class Command:
    """What a driver asks for: commanded tyre angle (left positive) and acceleration."""

    steer_rad: float
    accel_mps2: float


def footprint(pose: ArrayLike, params: VehicleModel = KART) -> FloatArray:
    """Corners (..., 4, 2) of the kart in the map: front left, front right, rear right, rear left."""
    front, rear, half = params.front_m, -params.rear_m, params.width_m / 2.0
    corners = np.array([[front, half, 0.0], [front, -half, 0.0], [rear, -half, 0.0], [rear, half, 0.0]])
    return to_map(corners, np.asarray(pose, np.float64)[..., None, :])[..., :2]
