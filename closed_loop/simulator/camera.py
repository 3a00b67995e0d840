"""A pinhole camera on the kart, and the flat ground seen through it.

Axes of ``base_link``: x forward, y left, z up. Pixels: u to the right, v down, pixel centres at whole numbers.
A flat ground seen by a pinhole is a homography, so the picture is one exact perspective warp of a texture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.errors import MonoError

FloatArray = NDArray[np.float64]


class Band(NamedTuple):
    """Image rows [top, bottom) drawn alike: ``rows_per_row`` samples down each row, from one mip level."""

    top: int
    bottom: int
    rows_per_row: int
    level: int


@dataclass(frozen=True)
class Camera:
    """Where a camera sits on the kart and what it sees.

    Attributes:
        x_m, y_m, z_m: mount in base_link.
        yaw_rad: positive turns the view left. pitch_rad: positive turns it down (REP-103).
        hfov_rad: horizontal field of view over the whole width; pixels are square.

    Raises:
        MonoError: a size or field of view no pinhole has.
    """

    name: str
    x_m: float = 0.8
    y_m: float = 0.0
    z_m: float = 0.7
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    hfov_rad: float = float(np.pi / 2)
    width_px: int = 640
    height_px: int = 360

    def __post_init__(self) -> None:
        if self.width_px < 8 or self.height_px < 8 or not 0.05 < self.hfov_rad < 3.0 or self.z_m <= 0.0:
            raise MonoError(
                f"camera {self.name!r} of {self.width_px}x{self.height_px} px, field {self.hfov_rad} rad, "
                f"height {self.z_m} m",
                "at least 8x8 px, a field between 0.05 and 3 rad, above the ground", "correct the camera",
            )

    def sized(self, width_px: int, height_px: int) -> Camera:
        """The same view with other pixels; keep the aspect ratio, or the picture is cropped up and down."""
        return replace(self, width_px=width_px, height_px=height_px)

    @cached_property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return self.width_px / 2.0 / float(np.tan(self.hfov_rad / 2.0))

    @cached_property
    def K(self) -> FloatArray:
        """(3, 3) intrinsic matrix, as in sensor_msgs/CameraInfo."""
        f = self.focal_px
        return np.array(
            [[f, 0.0, (self.width_px - 1) / 2.0], [0.0, f, (self.height_px - 1) / 2.0], [0.0, 0.0, 1.0]]
        )

    @cached_property
    def rotation(self) -> FloatArray:
        """(3, 3) from optical axes (right, down, forward) to base_link axes."""
        cy, sy = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        cp, sp = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        yaw = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
        pitch = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
        optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        return yaw @ pitch @ optical

    def optical(self, points: ArrayLike) -> FloatArray:
        """Points (..., 3) of base_link in optical axes: right, down, depth; metres."""
        return (np.asarray(points, np.float64) - (self.x_m, self.y_m, self.z_m)) @ self.rotation

    def project(self, points: ArrayLike) -> FloatArray:
        """Pixels (..., 2) of points (..., 3) in base_link; NaN for points that are not in front."""
        seen = self.optical(points)
        depth = np.where(seen[..., 2:] > 1e-6, seen[..., 2:], np.nan)
        return self.focal_px * seen[..., :2] / depth + self.K[:2, 2]

    @cached_property
    def horizon_px(self) -> float:
        """Row at which the ground ends (there is no roll, so it is one row for all columns)."""
        return float(self.K[1, 2] - self.focal_px * np.tan(self.pitch_rad))

    @cached_property
    def ground_from_pixel(self) -> FloatArray:
        """(3, 3) homography from (u, v, 1) to (x, y, 1) on the ground of base_link, up to scale."""
        ray = self.rotation @ np.linalg.inv(self.K)
        down = -ray[2]
        return np.stack([self.x_m * down + self.z_m * ray[0], self.y_m * down + self.z_m * ray[1], down])

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
