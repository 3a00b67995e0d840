"""Smooth lines through points: cubic curves over the chord length, closed or open. Pure numpy.

Both kinds are cubic Hermite curves and differ in their slopes: those of :func:`resample` keep the curvature continuous,
as a course needs it; those of :func:`through_corners` depend on the neighbours alone, as a measurement needs it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.geometry.poses import FloatArray, distance_along

# Counting steps on a knife's edge would let rounding, and so a rotation of the map, change the answer.
EDGE_M = 1e-6


def resample(xy: ArrayLike, step_m: float, closed: bool) -> FloatArray:
    """Points (M, 2), evenly about ``step_m`` apart, on a cubic spline through the given ones (arc-length parameter).

    They are (N, 2), N >= 3, without repeated neighbours; the nearest spacing that divides the length is used. A closed
    line has no seam, and neither repeats its first point.
    """
    points = np.asarray(xy, np.float64)
    origin = points.mean(axis=0)  # map coordinates of 1e5 m would cost digits
    points = points - origin
    pad = min(24, len(points))
    if closed:  # a natural spline forgets its ends within a few knots, so a wrapped margin makes it periodic
        points = np.vstack([points[-pad:], points, points[:pad]])
    knots = distance_along(points)
    first, last = (knots[pad], knots[len(points) - pad]) if closed else (knots[0], knots[-1])
    slope = _natural_slopes(knots, points)
    count = max(4, round((last - first) / step_m * 8))
    fine = np.linspace(first, last, count + 1)
    length = distance_along(_evaluate(knots, points, slope, fine))
    steps = max(4, round(length[-1] / step_m))
    even = np.linspace(0.0, length[-1], steps + 1)
    even = np.interp(even[:-1] if closed else even, length, fine)
    return np.asarray(_evaluate(knots, points, slope, even) + origin)


def through_corners(points: FloatArray, step_m: float, closed: bool) -> FloatArray:
    """Points at most ``step_m`` apart on a cubic curve through the given ones that does not swing beyond corners.

    These are (N, 2), N >= 2 (closed: 3), without repeated neighbours; their headings are averaged where they meet
    (non-uniform Catmull-Rom), so a distant point changes nothing here. The first point of a closed line is repeated at
    its end.
    """
    ring = np.concatenate([points, points[:1]]) if closed else points
    gap = np.linalg.norm(np.diff(ring, axis=0), axis=1)
    heading = np.diff(ring, axis=0) / gap[:, None]
    if closed:
        before, gap_before = np.roll(heading, 1, axis=0), np.roll(gap, 1)
        inner = (gap[:, None] * before + gap_before[:, None] * heading) / (gap_before + gap)[:, None]
        slope = np.concatenate([inner, inner[:1]])
    else:
        inner = (gap[1:, None] * heading[:-1] + gap[:-1, None] * heading[1:]) / (gap[:-1] + gap[1:])[:, None]
        slope = np.concatenate([heading[:1], inner, heading[-1:]])
    steps = np.maximum(np.ceil(gap / step_m - EDGE_M), 1.0).astype(np.int64)
    i = np.repeat(np.arange(len(gap)), steps)
    u = (np.arange(len(i)) - (np.cumsum(steps) - steps)[i]) / steps[i]
    return np.concatenate([_hermite(ring, slope, gap, i, u), ring[-1:]])


def _natural_slopes(knots: FloatArray, values: FloatArray) -> FloatArray:
    """Slopes at the knots of a natural cubic spline (tridiagonal elimination for its second derivatives)."""
    gap = np.diff(knots)
    rise = np.diff(values, axis=0) / gap[:, None]
    right = 6.0 * np.diff(rise, axis=0)
    diagonal = 2.0 * (gap[:-1] + gap[1:])
    for i in range(1, len(diagonal)):
        factor = gap[i] / diagonal[i - 1]
        diagonal[i] -= factor * gap[i]
        right[i] -= factor * right[i - 1]
    bend = np.zeros_like(values)
    for i in range(len(diagonal) - 1, -1, -1):
        bend[i + 1] = (right[i] - gap[i + 1] * bend[i + 2]) / diagonal[i]
    slope = rise - gap[:, None] * (2.0 * bend[:-1] + bend[1:]) / 6.0
    return np.concatenate([slope, rise[-1:] + gap[-1] * bend[-2:-1] / 6.0])


def _evaluate(knots: FloatArray, values: FloatArray, slope: FloatArray, at: FloatArray) -> FloatArray:
    """The curve at parameters within its knots."""
    i = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    gap = np.diff(knots)
    return _hermite(values, slope, gap, i, (at - knots[i]) / gap[i])


def _hermite(
    values: FloatArray, slope: FloatArray, gap: FloatArray, piece: NDArray[np.int64], share: FloatArray
) -> FloatArray:
    """Cubic Hermite curves: places (K, 2) a share (K,) of the way along pieces (K,) of these lengths."""
    u, length = share[:, None], gap[piece][:, None]
    return np.asarray(
        (2 * u**3 - 3 * u**2 + 1) * values[piece]
        + (u**3 - 2 * u**2 + u) * length * slope[piece]
        + (3 * u**2 - 2 * u**3) * values[piece + 1]
        + (u**3 - u**2) * length * slope[piece + 1]
    )


def integrate(curvature_1pm: FloatArray, step_m: FloatArray) -> FloatArray:
    """Poses (M+1, 3) of a line whose cells have constant curvature, from the origin (exact chords)."""
    yaw = np.concatenate([[0.0], np.cumsum(curvature_1pm * step_m)])
    half = 0.5 * np.diff(yaw)
    chord = step_m * np.sinc(half / np.pi)
    middle = yaw[:-1] + half
    x = np.concatenate([[0.0], np.cumsum(chord * np.cos(middle))])
    y = np.concatenate([[0.0], np.cumsum(chord * np.sin(middle))])
    return np.stack([x, y, yaw], axis=1)
