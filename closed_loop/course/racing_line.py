"""The line through a course that bends least: where a racing driver would go, as offsets from the reference line.

The sum of the squared second differences of the points is made as small as the road allows, each point moved sideways
only (F. Braghin et al., "Race driver model", Computers & Structures 86, 2008: the line of minimum curvature). Projected
gradient steps with Nesterov's momentum; a course of 300 m takes tenths of a second.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from closed_loop.course.course import Course
from collector.geometry.poses import FloatArray

_STEPS = 4000
# Largest eigenvalue of the squared second difference: the step is its inverse.
_STIFFEST = 16.0


@lru_cache(maxsize=16)
def racing_line(course: Course, keep_off_m: float) -> FloatArray:
    """(N,) metres left of each point of the reference line; the line stays ``keep_off_m`` from either edge."""
    yaw = course.yaw_rad
    aside = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    high = np.maximum(course.width_left_m - keep_off_m, 0.0)
    low = -np.maximum(course.width_right_m - keep_off_m, 0.0)
    offset = np.zeros(len(course.xy))
    ahead = offset.copy()
    for step in range(_STEPS):
        bend = _second_difference(course.xy + ahead[:, None] * aside, course.closed)
        slope = np.sum(_second_difference(bend, course.closed) * aside, axis=1)
        new = np.clip(ahead - slope / _STIFFEST, low, high)
        ahead = new + step / (step + 3.0) * (new - offset)
        offset = new
    return offset


def _second_difference(values: FloatArray, closed: bool) -> FloatArray:
    """(N, ...) of (N, ...); an open line bends nowhere beyond its ends. Its own transpose where the line is closed."""
    if closed:
        return np.roll(values, 1, axis=0) - 2.0 * values + np.roll(values, -1, axis=0)
    inner = np.zeros_like(values)
    inner[1:-1] = values[:-2] - 2.0 * values[1:-1] + values[2:]
    return inner
