"""Smooth lines through points: cubic splines over the arc length, closed or open. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def resample(xy: ArrayLike, step_m: float, closed: bool) -> FloatArray:
    """Points about ``step_m`` apart on a cubic spline through the given ones (arc-length parameter).

    Args:
        xy: (N, 2), N >= 3, no repeated neighbours; a closed line does not repeat its first point.
        step_m: wanted spacing; the nearest one that divides the length is used.
        closed: spline without a seam, first point not repeated.

    Returns:
        (M, 2) points, evenly spaced along the spline.
    """
    points = np.asarray(xy, np.float64)
    origin = points.mean(axis=0)  # map coordinates of 1e5 m would cost digits
    points = points - origin
    pad = min(24, len(points))
    if closed:  # a natural spline forgets its ends within a few knots, so a wrapped margin makes it periodic
        points = np.vstack([points[-pad:], points, points[:pad]])
        knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        first, last = knots[pad], knots[len(points) - pad]
    else:
        knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        first, last = knots[0], knots[-1]
    bend = _natural_spline(knots, points)
    count = max(4, round((last - first) / step_m * 8))
    fine = np.linspace(first, last, count + 1)
    path = _evaluate(knots, points, bend, fine)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    pieces = max(4, round(length[-1] / step_m))
    even = np.linspace(0.0, length[-1], pieces + 1)
    even = np.interp(even[:-1] if closed else even, length, fine)
    return _evaluate(knots, points, bend, even) + origin


def _natural_spline(knots: FloatArray, values: FloatArray) -> FloatArray:
    """Second derivatives at the knots of a natural cubic spline (tridiagonal elimination)."""
    gap = np.diff(knots)
    slope = np.diff(values, axis=0) / gap[:, None]
    right = 6.0 * np.diff(slope, axis=0)
    diagonal = 2.0 * (gap[:-1] + gap[1:])
    for i in range(1, len(diagonal)):
        factor = gap[i] / diagonal[i - 1]
        diagonal[i] -= factor * gap[i]
        right[i] -= factor * right[i - 1]
    bend = np.zeros_like(values)
    for i in range(len(diagonal) - 1, -1, -1):
        bend[i + 1] = (right[i] - gap[i + 1] * bend[i + 2]) / diagonal[i]
    return bend


def _evaluate(knots: FloatArray, values: FloatArray, bend: FloatArray, at: FloatArray) -> FloatArray:
    """The spline at parameters within its knots."""
    i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    gap = (knots[i + 1] - knots[i])[:, None]
    b = (at - knots[i])[:, None] / gap
    a = 1.0 - b
    cubic = ((a**3 - a) * bend[i] + (b**3 - b) * bend[i + 1]) * gap**2 / 6.0
    return a * values[i] + b * values[i + 1] + cubic


def integrate(curvature_1pm: FloatArray, step_m: FloatArray) -> FloatArray:
    """Poses (M+1, 3) of a line whose cells have constant curvature, from the origin (exact chords)."""
    yaw = np.concatenate([[0.0], np.cumsum(curvature_1pm * step_m)])
    half = 0.5 * np.diff(yaw)
    chord = step_m * np.sinc(half / np.pi)
    middle = yaw[:-1] + half
    x = np.concatenate([[0.0], np.cumsum(chord * np.cos(middle))])
    y = np.concatenate([[0.0], np.cumsum(chord * np.sin(middle))])
    return np.stack([x, y, yaw], axis=1)
