"""Planar poses: angles, frames, interpolation.

A pose is ``[x_m, y_m, yaw_rad]``, x forward, y left, yaw counter-clockwise (REP-103); arrays are float64 of
shape (..., 3). Everything here is pure numpy and works on map poses and ego poses alike.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def wrap_angle(angle_rad: ArrayLike) -> FloatArray:
    """Angles brought into [-pi, pi), any shape, radians."""
    angle = np.asarray(angle_rad, dtype=np.float64)
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def quaternion_yaw(x: float, y: float, z: float, w: float) -> float:
    """Yaw of a quaternion (REP-103 axes), of any length; NaN for an all-zero one, which has no direction."""
    if x * x + y * y + z * z + w * w <= 1e-12:
        return float("nan")
    return float(np.arctan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z))


def to_ego(poses_map: ArrayLike, origin_map: ArrayLike) -> FloatArray:
    """Map poses (..., 3) seen from the frame at ``origin_map``, (3,) or broadcastable; yaw in [-pi, pi)."""
    poses, origin = np.asarray(poses_map, np.float64), np.asarray(origin_map, np.float64)
    dx, dy = poses[..., 0] - origin[..., 0], poses[..., 1] - origin[..., 1]
    cos, sin = np.cos(origin[..., 2]), np.sin(origin[..., 2])
    return np.stack([cos * dx + sin * dy, -sin * dx + cos * dy, wrap_angle(poses[..., 2] - origin[..., 2])], axis=-1)


def to_map(poses_ego: ArrayLike, origin_map: ArrayLike) -> FloatArray:
    """The inverse of :func:`to_ego`: ego poses (..., 3) placed in the map of ``origin_map``."""
    poses, origin = np.asarray(poses_ego, np.float64), np.asarray(origin_map, np.float64)
    cos, sin = np.cos(origin[..., 2]), np.sin(origin[..., 2])
    x = origin[..., 0] + cos * poses[..., 0] - sin * poses[..., 1]
    y = origin[..., 1] + sin * poses[..., 0] + cos * poses[..., 1]
    return np.stack([x, y, wrap_angle(poses[..., 2] + origin[..., 2])], axis=-1)


def advance(pose: tuple[float, float, float], distance_m: float, curvature_1pm: float) -> tuple[float, float, float]:
    """A pose moved along an arc (exact)."""
    x, y, yaw = pose
    half = 0.5 * distance_m * curvature_1pm
    chord = distance_m * math.sin(half) / half if abs(half) > 1e-9 else distance_m
    return x + chord * math.cos(yaw + half), y + chord * math.sin(yaw + half), yaw + 2.0 * half


def interpolate_poses(stamps_ns: ArrayLike, poses: ArrayLike, query_ns: ArrayLike) -> FloatArray:
    """Poses (M, 3) at query stamps (M,) within (N,) rising stamps: position linearly, yaw along the shorter arc.

    Raises:
        ValueError: fewer than two poses, stamps not increasing, or a query outside the range.
    """
    stamps = np.asarray(stamps_ns, np.int64)
    values = np.asarray(poses, np.float64)
    query = np.atleast_1d(np.asarray(query_ns, np.int64))
    if len(stamps) < 2 or np.any(np.diff(stamps) <= 0):
        raise ValueError("interpolation needs at least two poses with strictly increasing stamps")
    if query.size and (query.min() < stamps[0] or query.max() > stamps[-1]):
        raise ValueError("a queried stamp lies outside the recorded poses")
    # Subtract before dividing: nanoseconds since 1970 lose their low bits as float64.
    after = np.clip(np.searchsorted(stamps, query, side="right"), 1, len(stamps) - 1)
    before = after - 1
    weight = (query - stamps[before]) / (stamps[after] - stamps[before])
    mixed = values[before] + weight[:, None] * (values[after] - values[before])
    turn = wrap_angle(values[after, 2] - values[before, 2])
    mixed[:, 2] = wrap_angle(values[before, 2] + weight * turn)
    return mixed


def distance_along(xy: ArrayLike) -> FloatArray:
    """Arc length at each point of a polyline (N, 2), metres, starting at 0."""
    points = np.asarray(xy, np.float64)
    steps = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def tangent_yaw(xy: ArrayLike, closed: bool = False) -> FloatArray:
    """Heading of a polyline (N, 2) at its points by central differences, radians, unwrapped.

    ``closed`` joins the last point to the first. Needs at least two distinct points.
    """
    points = np.asarray(xy, np.float64)
    if closed:
        delta = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    else:
        delta = np.gradient(points, axis=0)
    return np.unwrap(np.arctan2(delta[:, 1], delta[:, 0]))


def mirror_poses(poses: ArrayLike) -> FloatArray:
    """The same drive in a mirror: y and yaw change sign, (..., 3)."""
    return np.asarray(np.asarray(poses, np.float64) * (1.0, -1.0, -1.0))
