"""A pinhole camera on the kart: the one projection from base_link to pixels, and a path as a ribbon on the road.

Axes of ``base_link``: x forward, y left, z up, on the ground. Pixels: u to the right, v down, pixel centres at whole
numbers. The simulator renders with it and the pages draw with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray

KART_WIDTH_M = 1.30  # over the bodywork, from the kart's vehicle_info
KART_FRONT_M, KART_REAR_M = 1.554, 0.510  # bumpers from the rear axle
# Nearer ground than this in front of the lens fills the picture and tells nothing.
_NEAREST_M = 0.5


@dataclass(frozen=True)
class Pinhole:
    """Where a camera sits on the kart and what it sees; the defaults are those of the kart's description.

    Raises:
        MonoError: a size, field of view or matrix no pinhole has.
    """

    name: str
    x_m: float = 0.8  # mount in base_link
    y_m: float = 0.0
    z_m: float = 0.7
    yaw_rad: float = 0.0  # positive turns the view left. pitch_rad: positive turns it down (REP-103).
    pitch_rad: float = 0.0
    hfov_rad: float = float(np.pi / 2)  # horizontal field of view over the whole width; pixels are square
    width_px: int = 640  # size of the picture
    height_px: int = 360  # and its height
    # the nine numbers of a CameraInfo's K for this size, row by row; they take the place of `hfov_rad`
    matrix: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        values = (self.x_m, self.y_m, self.z_m, self.yaw_rad, self.pitch_rad, self.hfov_rad)
        if (
            self.width_px < 8
            or self.height_px < 8
            or not 0.05 < self.hfov_rad < 3.0
            or not (np.isfinite(values).all() and self.z_m > 0.0 and abs(self.pitch_rad) < 1.5)
        ):
            size, mount = f"{self.width_px}x{self.height_px} px", f"height {self.z_m} m, pitch {self.pitch_rad} rad"
            found = f"camera {self.name!r} of {size}, field {self.hfov_rad} rad, {mount}"
            expected = "at least 8x8 px, a field between 0.05 and 3 rad, above the ground, pitch within 1.5 rad"
            raise MonoError(found, expected, "correct the camera")
        if self.matrix is not None and not is_camera_matrix(self.matrix):
            found = f"camera {self.name!r} with K = {list(self.matrix)}"
            raise MonoError(found, "nine finite numbers with positive focal lengths", "correct the camera")

    def sized(self, width_px: int, height_px: int) -> Pinhole:
        """The same view with other pixels.

        A view given by its field keeps square pixels: with another aspect ratio it is cropped up and down. A matrix
        is stretched with the picture, as a recorder's scaling does.
        """
        if self.matrix is None:
            return replace(self, width_px=width_px, height_px=height_px)
        scaled = scaled_matrix(self.K, width_px / self.width_px, height_px / self.height_px)
        matrix = tuple(float(value) for value in scaled.ravel())
        return replace(self, width_px=width_px, height_px=height_px, matrix=matrix)

    @cached_property
    def K(self) -> FloatArray:  # noqa: N802 - its name in CameraInfo
        """(3, 3) intrinsic matrix, as in sensor_msgs/CameraInfo."""
        if self.matrix is not None:
            return np.array(self.matrix, np.float64).reshape(3, 3)
        return field_matrix(self.hfov_rad, self.width_px, self.height_px)

    @cached_property
    def rotation(self) -> FloatArray:
        """(3, 3) from optical axes (right, down, forward) to base_link axes."""
        cy, sy = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        cp, sp = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        yaw = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
        pitch = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
        optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        return np.asarray(yaw @ pitch @ optical)

    def optical(self, points: ArrayLike) -> FloatArray:
        """Points (..., 3) of base_link in optical axes: right, down, depth; metres."""
        return np.asarray((np.asarray(points, np.float64) - (self.x_m, self.y_m, self.z_m)) @ self.rotation)

    def project(self, points: ArrayLike) -> FloatArray:
        """Pixels (..., 2) of points (..., 3) in base_link; NaN for points that are not in front."""
        seen = self.optical(points)
        depth = np.where(seen[..., 2:] > 1e-6, seen[..., 2:], np.nan)
        return np.asarray(seen[..., :2] / depth @ self.K[:2, :2].T + self.K[:2, 2])

    @cached_property
    def horizon_px(self) -> float:
        """Row at which the ground ends (there is no roll, so it is one row for all columns)."""
        return float(self.K[1, 2] - self.K[1, 1] * np.tan(self.pitch_rad))

    @cached_property
    def ground_from_pixel(self) -> FloatArray:
        """(3, 3) homography from (u, v, 1) to (x, y, 1) on the ground of base_link, up to scale."""
        ray = self.rotation @ np.linalg.inv(self.K)
        down = -ray[2]
        return np.stack([self.x_m * down + self.z_m * ray[0], self.y_m * down + self.z_m * ray[1], down])


def field_matrix(hfov_rad: float, width_px: int, height_px: int) -> FloatArray:
    """(3, 3) intrinsic matrix of square pixels from the horizontal field of view over the whole width."""
    f = width_px / 2.0 / float(np.tan(hfov_rad / 2.0))
    return np.array([[f, 0.0, (width_px - 1) / 2.0], [0.0, f, (height_px - 1) / 2.0], [0.0, 0.0, 1.0]])


def scaled_matrix(matrix: FloatArray, wide: float, high: float) -> FloatArray:
    """The intrinsic matrix (3, 3) of a picture that was stretched by these factors."""
    # Pixel centres are whole numbers, so the picture's corner is at -0.5, and that is the point that stays.
    scale = np.array([[wide, 0.0, 0.5 * wide - 0.5], [0.0, high, 0.5 * high - 0.5], [0.0, 0.0, 1.0]])
    return np.asarray(scale @ matrix, np.float64)


def is_camera_matrix(values: ArrayLike) -> bool:
    """Whether these are the nine numbers of a pinhole's K; an uncalibrated CameraInfo has zeros."""
    try:
        flat = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        return False
    return bool(flat.shape == (9,) and np.isfinite(flat).all() and flat[0] > 0.0 and flat[4] > 0.0)


def path_ribbon(future: ArrayLike, camera: Pinhole, half_width_m: float = KART_WIDTH_M / 2.0) -> FloatArray:
    """A future path, (64, 3) ego poses, as a ribbon on the ground in the picture: (2, N, 2) pixels of both borders.

    Points behind the camera, or nearer than half a metre, are left out. A half width of 0 gives the middle line twice.
    """
    first, last = seen_part(future, camera, half_width_m)
    return camera.project(path_borders(future, half_width_m)[:, first:last])


def seen_part(future: ArrayLike, camera: Pinhole, half_width_m: float = KART_WIDTH_M / 2.0) -> tuple[int, int]:
    """Which poses [first, last) of a future :func:`path_ribbon` draws; first = last when none is in front."""
    ahead: NDArray[np.bool_] = np.all(camera.optical(path_borders(future, half_width_m))[..., 2] > _NEAREST_M, axis=0)
    if not ahead.any():
        return 0, 0
    first = int(np.argmax(ahead))
    # Once the path has left the view it could only come back as a line across the whole picture.
    behind = np.flatnonzero(~ahead[first:])
    return first, first + int(behind[0]) if len(behind) else len(ahead)


def path_borders(future: ArrayLike, half_width_m: float = KART_WIDTH_M / 2.0) -> FloatArray:
    """(2, N, 3) the left and the right border of a ribbon along ego poses (N, 3), on the ground of base_link."""
    poses = np.asarray(future, np.float64)
    aside = np.stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])], axis=1) * half_width_m
    borders = np.stack([poses[:, :2] + aside, poses[:, :2] - aside])
    return np.concatenate([borders, np.zeros((*borders.shape[:2], 1))], axis=2)
