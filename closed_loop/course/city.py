"""The City Circuit look-alike, made from straights, arcs and clothoids.

It follows a table of the real circuit's curves (station, turn, smallest radius); straights and
turns are then corrected as little as possible until the line closes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from closed_loop.course.course import Course, strips
from collector.geometry.poses import FloatArray
from collector.geometry.splines import integrate, resample

COURSE_STEP_M = 0.5
CITY_LENGTH_M = 365.75
CITY_WIDTH_M = 7.13

# Curves of City Circuit Tokyo Bay's centreline: start m, end m, turn deg (left positive), smallest radius m,
# and the gentle turn in degrees of the stretch that follows, where the road has one worth naming.
CITY_CURVES: tuple[tuple[float, float, float, float, float], ...] = (
    (32.0, 50.0, -175.0, 5.09, 0.0),
    (79.6, 97.1, 175.0, 4.53, 0.0),
    (130.1, 134.1, 36.0, 5.15, 0.0),
    (136.6, 150.1, -123.0, 4.51, 0.0),
    (154.6, 165.6, -91.0, 5.88, 0.0),
    (168.1, 181.1, 86.0, 5.40, 0.0),
    (189.6, 209.1, -182.0, 3.97, -12.0),
    (221.7, 236.2, 147.0, 4.16, 0.0),
    (244.7, 255.7, 107.0, 4.94, 0.0),
    (257.2, 271.7, -144.0, 4.75, 0.0),
    (280.2, 292.7, -90.0, 6.62, 0.0),
    (296.7, 303.2, -38.0, 7.85, 0.0),
    (306.7, 318.2, 96.0, 5.43, 0.0),
    (328.7, 345.2, -106.0, 5.72, 0.0),
    (353.2, 359.7, -40.0, 7.69, 0.0),
)


@lru_cache(maxsize=1)
def city_course() -> Course:
    """City Circuit look-alike: 15 curves, clockwise, about 366 m, smallest radius about 4 m, 7.1 m wide."""
    count = len(CITY_CURVES)
    table = np.array(CITY_CURVES)
    gap = np.append(table[1:, 0], table[0, 0] + CITY_LENGTH_M) - table[:, 1]
    nominal = np.concatenate([gap, np.radians(table[:, 2]), np.radians(table[:, 4])])
    # How readily each number gives way while closing: straights, then turns, then gentle bends.
    ease = np.concatenate([0.12 * gap, np.full(count, np.radians(3.0)), np.radians(0.35 * gap)])

    def closing_error(correction: FloatArray) -> FloatArray:
        line = _city_line(nominal + ease * correction)
        return np.array([line[-1, 0], line[-1, 1], 20.0 * (line[-1, 2] + 2.0 * np.pi)])

    correction = np.zeros(3 * count)
    nudge = 1e-4 * np.eye(3 * count)
    for _ in range(12):  # Newton steps to the closed line with the smallest weighted correction
        error = closing_error(correction)
        if np.abs(error).max() < 1e-9:
            break
        slope = np.stack([(closing_error(correction + step) - error) / 1e-4 for step in nudge], axis=1)
        correction = slope.T @ np.linalg.solve(slope @ slope.T, slope @ correction - error)
    xy = resample(_city_line(nominal + ease * correction)[:-1:4, :2], COURSE_STEP_M, closed=True)
    xy = np.roll(xy, round(CITY_CURVES[0][0] / COURSE_STEP_M), axis=0)  # station 0 as in the table
    turn = 2.0 * np.pi * np.arange(len(xy)) / len(xy)
    half = CITY_WIDTH_M / 2.0 + 0.25 * np.sin(3.0 * turn + 0.4) + 0.15 * np.sin(7.0 * turn + 2.0)
    half = _make_room(xy, half, strip_m=1.0)
    return Course("city", xy, True, half, half)


def _make_room(xy: FloatArray, half_m: FloatArray, strip_m: float) -> FloatArray:
    """Half widths, narrowed where two stretches would come closer than ``strip_m``, with soft ends."""
    course = Course("city", xy, True, half_m, half_m)
    lack = np.zeros_like(half_m)
    pairs, strip = strips(course)
    np.maximum.at(lack, pairs[:, 0], np.maximum(0.0, strip_m - strip) / 2.0)
    lack = np.max([np.roll(lack, k) for k in range(-8, 9)], axis=0)
    return np.asarray(half_m - np.mean([np.roll(lack, k) for k in range(-8, 9)], axis=0))


def _city_line(numbers: FloatArray, step_m: float = 0.1) -> FloatArray:
    """Line (M, 3) from gaps (m), turns (rad) and gentle turns (rad); the start point is set afterwards.

    A curve is clothoid - arc - clothoid: its curvature rises linearly to 1/R, holds and falls. Given length,
    turn and R, the clothoid's length follows: length - |turn| R.
    """
    gaps, turns, gentle = np.split(numbers, 3)
    curvature, lengths = [], []
    for row, gap, turn, bend in zip(CITY_CURVES, gaps, turns, gentle, strict=True):
        length, radius = row[1] - row[0], row[3]
        clothoid = float(np.clip(length - abs(turn) * radius, 0.3, length / 2.0))
        cells = round(length / step_m)
        at = (np.arange(cells) + 0.5) * length / cells
        shape = np.minimum(np.minimum(at, length - at) / clothoid, 1.0)
        curvature.append(shape * turn / (shape.sum() * length / cells))
        lengths.append(np.full(cells, length / cells))
        cells = max(4, round((row[1] - row[0] + gap) / step_m) - cells)
        shape = np.sin(np.pi * (np.arange(cells) + 0.5) / cells)
        curvature.append(shape * bend / (shape.sum() * gap / cells))
        lengths.append(np.full(cells, gap / cells))
    return integrate(np.concatenate(curvature), np.concatenate(lengths))
