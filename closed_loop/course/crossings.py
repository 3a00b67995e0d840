"""Where lines cross themselves or one another, in time that grows with their length alone."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
from numpy.typing import NDArray

from closed_loop.course.course import Course, other_stretch
from collector.geometry.poses import FloatArray


def crossing(one: FloatArray, other: FloatArray) -> FloatArray | None:
    """A point (2,) in which two short lines (N, 2) and (M, 2) cross, None where they do not."""
    meets, share = _segments_cross(one[:-1, None], one[1:, None], other[None, :-1], other[None, 1:])
    if not meets.any():
        return None
    i, j = np.argwhere(meets)[0]
    return np.asarray(one[i] + share[i, j] * (one[i + 1] - one[i]))


def self_crossing(line: FloatArray, closed: bool, cell_m: float) -> FloatArray | None:
    """The first point (2,) in which a line of segments under ``cell_m`` crosses itself, None where it does not."""
    points = np.vstack([line, line[:1]]) if closed else line
    last = len(points) - 2
    middles = np.floor(0.5 * (points[:-1] + points[1:]) / cell_m).astype(np.int64).tolist()
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (x, y) in enumerate(middles):
        for dx, dy in product((-1, 0, 1), repeat=2):
            for j in cells.get((x + dx, y + dy), ()):
                if i - j > 1 and not (closed and j == 0 and i == last):
                    meets, share = _segments_cross(points[j], points[j + 1], points[i], points[i + 1])
                    if meets:
                        return np.asarray(points[j] + share * (points[j + 1] - points[j]))
        cells[(x, y)].append(i)
    return None


def nearest_stretches(course: Course, reach_m: float) -> tuple[float, FloatArray] | None:
    """How near two stretches of a course come, if nearer than ``reach_m``, and where (2,); see :func:`strips`."""
    best: tuple[float, FloatArray] | None = None
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    xy, s_m = course.xy, course.s_m
    for i, (x, y) in enumerate(np.floor(xy / reach_m).astype(np.int64).tolist()):
        around = (cells.get((x + dx, y + dy), ()) for dx, dy in product((-1, 0, 1), repeat=2))
        others = np.array([j for numbers in around for j in numbers], dtype=np.int64)
        cells[(x, y)].append(i)
        distance, along = np.hypot(*(xy[others] - xy[i]).T), s_m[i] - s_m[others]
        if course.closed:
            along = np.minimum(along, course.length_m - along)
        distance[~other_stretch(distance, along)] = np.inf
        if len(others) and distance.min() < (best[0] if best else reach_m):
            best = float(distance.min()), xy[i]
    return best


def _segments_cross(a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
    """Whether segments a-b and c-d cross (their last axis is x, y), and at which share of a-b."""
    along, across, between = b - a, d - c, c - a
    turn = along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (between[..., 0] * across[..., 1] - between[..., 1] * across[..., 0]) / turn
        other = (between[..., 0] * along[..., 1] - between[..., 1] * along[..., 0]) / turn
    return (share >= 0.0) & (share <= 1.0) & (other >= 0.0) & (other <= 1.0), share
