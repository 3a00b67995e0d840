"""The line through a course that bends least: where a racing driver would go, as offsets from the reference line.

The sum of the squared curvatures is made as small as the road allows, each point moved sideways only (A. Heilmeier et
al., "Minimum curvature trajectory planning and control for an autonomous race car", Vehicle System Dynamics 58, 2020).
The offsets are a cubic B-spline, so that the line has no kinks where it meets the road's edge; its control points are
found one after the other, each within its bounds, the spacing of the line's points taken from the line before.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from closed_loop.course.course import Course
from collector.geometry.poses import FloatArray

_KNOT_M = 4.0
# Rounds over the spacing, and over the control points.
_ROUNDS, _SWEEPS, _CLOSE_M = 4, 6000, 1e-6
# Of curvature squared per metre squared of offset: keeps a straight's line where it is.
_STAY = 1e-6


@lru_cache(maxsize=16)
def racing_line(course: Course, keep_off_m: float) -> FloatArray:
    """(N,) metres left of each point of the reference line; the line stays ``keep_off_m`` from either edge."""
    count = len(course.xy)
    aside = np.stack([-np.sin(course.yaw_rad), np.cos(course.yaw_rad)], axis=1)
    high = np.maximum(course.width_left_m - keep_off_m, 0.0)
    low = -np.maximum(course.width_right_m - keep_off_m, 0.0)
    here = np.arange(count) if course.closed else np.arange(1, count - 1)
    before, after = (here - 1) % count, (here + 1) % count
    basis = _basis(course)
    # A spline lies between the control points it is made of.
    touched = basis > 0.0
    most = np.array([high[column].min() for column in touched.T])
    least = np.array([low[column].max() for column in touched.T])
    control, offset = np.zeros(basis.shape[1]), np.zeros(count)
    for _ in range(_ROUNDS):
        line = course.xy + offset[:, None] * aside
        one, other = (np.linalg.norm(line[there] - line[here], axis=1) for there in (before, after))
        # The second derivative along the line, of points that are not evenly spaced.
        table = np.zeros((len(here), count))
        bend = np.zeros(len(here))
        weights = 2.0 / (one * (one + other)), -2.0 / (one * other), 2.0 / (other * (one + other))
        for points, weight in zip((before, here, after), weights, strict=True):
            table[np.arange(len(here)), points] += weight * np.sum(aside[points] * aside[here], axis=1)
            bend += weight * np.sum(course.xy[points] * aside[here], axis=1)
        table = table @ basis
        control = _within(table.T @ table + _STAY * np.eye(len(control)), -table.T @ bend, control, least, most)
        offset = np.asarray(basis @ control, np.float64)
    return offset


def _basis(course: Course) -> FloatArray:
    """(N, K) how much each control point counts at each point of the course; rows add up to 1."""
    knots = max(4, round(course.length_m / _KNOT_M))
    place = course.s_m / course.length_m * knots
    whole = np.floor(place).astype(int)
    part = place - whole
    cubic = ((1 - part) ** 3, 3 * part**3 - 6 * part**2 + 4, -3 * part**3 + 3 * part**2 + 3 * part + 1, part**3)
    basis: FloatArray = np.zeros((len(place), knots))
    for step, weight in zip((-1, 0, 1, 2), cubic, strict=True):
        column = (whole + step) % knots if course.closed else np.clip(whole + step, 0, knots - 1)
        np.add.at(basis, (np.arange(len(place)), column), weight / 6.0)
    return basis


def _within(square: FloatArray, right: FloatArray, start: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """The least x' S x / 2 - r' x with every x between its bounds, one coordinate at a time."""
    found: FloatArray = start.copy()
    for _ in range(_SWEEPS):
        moved = 0.0
        for index in range(len(found)):
            wanted = found[index] + (right[index] - square[index] @ found) / square[index, index]
            new = min(max(wanted, low[index]), high[index])
            moved, found[index] = max(moved, abs(new - found[index])), new
        if moved < _CLOSE_M:
            break
    return np.asarray(found, np.float64)
