"""The rendered cameras: the flat ground seen through the kart's pinhole (:mod:`collector.geometry.pinhole`).

A flat ground seen by a pinhole is a homography, so the picture is one exact perspective warp of a texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.pinhole import Pinhole
from collector.geometry.poses import FloatArray


class Band(NamedTuple):
    """Image rows [top, bottom) drawn alike: ``rows_per_row`` samples down each row, from one mip level."""

    top: int
    bottom: int
    rows_per_row: int
    level: int


@dataclass(frozen=True)
class Camera(Pinhole):
    """A pinhole that can be rendered: how far each row looks, and how finely it is to be sampled.

    Rendering assumes square pixels and an upright horizon.
    """

    @cached_property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return float(self.K[0, 0])

    def distance_of_row(self, row: ArrayLike) -> FloatArray:
        """Distance along the optical axis' ground track to the ground seen in a row; inf at the horizon."""
        v = (np.asarray(row, np.float64) - self.K[1, 2]) / self.focal_px
        drop = np.cos(self.pitch_rad) * v + np.sin(self.pitch_rad)
        ahead = np.cos(self.pitch_rad) - np.sin(self.pitch_rad) * v
        return np.where(drop > 1e-9, self.z_m * ahead / np.maximum(drop, 1e-9), np.inf)

    def bands(self, px_m: float, levels: int) -> tuple[Band, ...]:
        """How to sample a ground texture of ``px_m`` per pixel without aliasing: far rows cover metres.

        Sideways a mip level fits the pixel; along the view, where a pixel is longer, a row is averaged from
        up to eight.
        """
        top = max(0, int(np.floor(self.horizon_px)) + 1)
        found: list[Band] = []
        for row in range(top, self.height_px):
            near, middle, far = (float(self.distance_of_row(row + half)) for half in (0.5, 0.0, -0.5))
            aside = middle / self.focal_px
            along = min(far, 4.0 * middle) - near
            level = int(np.clip(np.ceil(np.log2(max(aside / px_m, 1e-6))), 0, levels - 1))
            while level < levels - 1 and along > 8.0 * px_m * 2**level:
                level += 1
            wanted = along / (px_m * 2**level)
            rows = 1 if wanted <= 1.3 else 2 if wanted <= 2.6 else 4 if wanted <= 5.2 else 8
            same = bool(found) and found[-1].rows_per_row == rows and found[-1].level == level
            if found and (same or found[-1].bottom - found[-1].top < 4):  # a short band is not worth a call
                found[-1] = found[-1]._replace(bottom=row + 1)
            else:
                found.append(Band(row, row + 1, rows, level))
        return tuple(found)


FRONT = Camera("front")
FRONT_TELE = Camera("front_tele", hfov_rad=float(np.radians(30.0)))
CROSS_LEFT = Camera("cross_left", yaw_rad=float(np.radians(55.0)))
CROSS_RIGHT = Camera("cross_right", yaw_rad=float(np.radians(-55.0)))
# In the order in which the model sees them (finetune.policy.CAMERA_ORDER).
FOUR_CAMERAS: tuple[Camera, ...] = (CROSS_LEFT, FRONT, CROSS_RIGHT, FRONT_TELE)
