"""Seeded random circuits: closed, never meeting themselves, of the size and twistiness of a kart track.

A circuit walks once around a random figure of grid cells, which keeps its stretches a cell apart; the corners
are then moved, the plane bent, and every corner rounded with a radius of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from closed_loop.course.course import Course, clearance_m
from collector.geometry.poses import FloatArray
from collector.geometry.splines import integrate, resample

COURSE_STEP_M = 0.5
RANDOM_LENGTH_M = (250.0, 400.0)
RANDOM_RADIUS_M = (4.0, 30.0)
RANDOM_WIDTH_M = (5.5, 8.0)
VERGE_M = 1.5  # grass that always remains between two stretches of a random circuit


@lru_cache(maxsize=64)
def random_course(seed: int) -> Course:
    """A closed circuit of 250-400 m, radii 4-30 m, width 5.5-8 m, that keeps clear of itself.

    The same seed gives the same course. Drawn shapes that do not meet the limits are redrawn, each time
    milder; the mildest is the rounded grid itself, which always meets them.
    """
    rng = np.random.default_rng([77, seed])
    for attempt in range(40):
        wildness = max(0.0, 1.0 - attempt / 12.0)
        course = _draw_circuit(f"random:{seed}", rng, wildness)
        if course is not None:
            return course
    raise AssertionError(f"no circuit for seed {seed}")  # the plain grid cannot fail; a test walks the seeds


def _draw_circuit(name: str, rng: np.random.Generator, wildness: float) -> Course | None:
    cell = rng.uniform(10.6, 13.0) if wildness > 0.0 else 12.0
    wanted = rng.uniform(270.0, 400.0)
    corners = _outline(_grow_cells(rng, max(9, round(wanted * 1.08 / cell / 2.0) - 1)))
    corners = _cut_steps(corners, rng, wildness)
    points = corners * cell
    points = points + wildness * rng.normal(0.0, 0.11 * cell, points.shape).clip(-0.25 * cell, 0.25 * cell)
    points = _warp(points, rng, wildness)
    base = rng.uniform(6.0, 7.6) if wildness > 0.0 else 6.5
    line = _rounded(points, rng, wildness)
    if line is None:
        return None
    xy = resample(line, COURSE_STEP_M, closed=True)
    if rng.random() < 0.5:
        xy = xy[::-1]
    turn = 2.0 * np.pi * np.arange(len(xy)) / len(xy)
    width = base + sum(rng.uniform(0.0, 0.35) * np.sin(wave * turn + rng.uniform(0.0, 6.3)) for wave in (2, 5, 9))
    half = np.clip(width, *RANDOM_WIDTH_M) / 2.0
    start = _longest_straight(Course(name, xy, True, half, half))
    course = Course(name, np.roll(xy, -start, axis=0), True, np.roll(half, -start), np.roll(half, -start))
    return course if _acceptable(course) else None


def _acceptable(course: Course) -> bool:
    low, high = RANDOM_LENGTH_M
    radius = 1.0 / np.abs(course.curvature_1pm).max()
    return (
        low <= course.length_m <= high
        and radius >= RANDOM_RADIUS_M[0] - 0.05
        and clearance_m(course) >= VERGE_M
        and abs(abs(course.yaw_rad[-1] - course.yaw_rad[0]) - 2.0 * np.pi) < 1.0
    )


def _grow_cells(rng: np.random.Generator, count: int) -> set[tuple[int, int]]:
    """A random figure of ``count`` grid cells without holes whose outline is one simple loop.

    A cell joins only when it touches the figure along exactly one side and at no far corner, so every cell
    adds two sides to the outline and no two cells meet only at a corner.
    """
    cells = {(0, 0)}
    straight = rng.uniform(0.5, 6.0)
    while len(cells) < count:
        free = []
        for x, y in sorted({side for cell in cells for side in _neighbours(*cell)} - cells):
            touching = [side for side in _neighbours(x, y) if side in cells]
            if len(touching) != 1:
                continue
            dx, dy = x - touching[0][0], y - touching[0][1]
            ahead = [(x + dx * a + dy * b, y + dy * a + dx * b) for a in (0, 1) for b in (-1, 0, 1)]
            if all(side == (x, y) or side not in cells for side in ahead):
                # Compact figures with some long arms: fewer bends for the same length.
                onward = (touching[0][0] - dx, touching[0][1] - dy) in cells
                free.append(((x, y), (0.05 + np.exp(-0.06 * (x * x + y * y))) * (straight if onward else 1.0)))
        weight = np.array([w for _, w in free])
        cells.add(free[int(rng.choice(len(free), p=weight / weight.sum()))][0])
    return cells


def _neighbours(x: int, y: int) -> Iterator[tuple[int, int]]:
    yield from ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1))


def _outline(cells: set[tuple[int, int]]) -> FloatArray:
    """Grid points (N, 2) once around the figure, counter-clockwise."""
    follows: dict[tuple[int, int], tuple[int, int]] = {}
    for x, y in cells:
        if (x, y - 1) not in cells:
            follows[(x, y)] = (x + 1, y)
        if (x + 1, y) not in cells:
            follows[(x + 1, y)] = (x + 1, y + 1)
        if (x, y + 1) not in cells:
            follows[(x + 1, y + 1)] = (x, y + 1)
        if (x - 1, y) not in cells:
            follows[(x, y + 1)] = (x, y)
    start = min(follows)
    loop = [start]
    while follows[loop[-1]] != start:
        loop.append(follows[loop[-1]])
    return np.array(loop, np.float64)


def _cut_steps(corners: FloatArray, rng: np.random.Generator, wildness: float) -> FloatArray:
    """Some of the steps (a left and a right corner one cell apart) replaced by their midpoint: 45 degrees."""
    points = list(corners)
    index = 0
    while index < len(points) and wildness > 0.0:
        before, here, there, after = (points[(index + k) % len(points)] for k in range(-1, 3))
        first = _cross(here - before, there - here)
        second = _cross(there - here, after - there)
        if first * second < 0.0 and rng.random() < 0.6 * wildness:
            points[index] = 0.5 * (here + there)
            del points[(index + 1) % len(points)]
        index += 1
    return np.array(points)


def _cross(one: FloatArray, other: FloatArray) -> float:
    return float(one[0] * other[1] - one[1] * other[0])


def _warp(points: FloatArray, rng: np.random.Generator, wildness: float) -> FloatArray:
    """A slow swirl of the plane and a turn: right angles become 60 to 120 degrees, nothing crosses."""
    span = np.ptp(points, axis=0).max()
    moved = points.copy()
    for axis in (0, 1):
        for wave in (1.0, 2.0):
            phase = rng.uniform(0.0, 2.0 * np.pi)
            swing = wildness * rng.uniform(0.0, 0.30) * span / (2.0 * np.pi * wave)
            moved[:, axis] += swing * np.sin(2.0 * np.pi * wave * points[:, 1 - axis] / span + phase)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(moved @ np.array([[cos, sin], [-sin, cos]]))


def _rounded(points: FloatArray, rng: np.random.Generator, wildness: float) -> FloatArray | None:
    """The polygon with an arc of drawn radius in each corner, its joints eased into short clothoids."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    edge = np.linalg.norm(after, axis=1)
    unit = after / edge[:, None]
    into = np.roll(unit, 1, axis=0)
    turn = np.arctan2(into[:, 0] * unit[:, 1] - into[:, 1] * unit[:, 0], (into * unit).sum(axis=1))
    room = np.minimum(edge, np.linalg.norm(before, axis=1)) * 0.5
    tangent_per_radius = np.tan(np.abs(turn) / 2.0)
    limit = room / np.maximum(tangent_per_radius, 1e-3)
    low, high = RANDOM_RADIUS_M
    low = low + 0.25  # the easing below costs a little of it
    if (limit < low).any():
        return None
    pull = rng.random(len(points)) if wildness > 0.0 else np.full(len(points), 0.4)
    radius = low + pull * (np.minimum(limit, high) - low)
    tangent = radius * tangent_per_radius
    straight = edge - tangent - np.roll(tangent, -1)
    curvature, lengths = [], []
    for index in range(len(points)):
        for value, length in ((turn[index], radius[index] * abs(turn[index])), (0.0, straight[index])):
            if length > 1e-6:
                cells = max(1, round(length / 0.25))
                curvature.append(np.full(cells, value / length))
                lengths.append(np.full(cells, length / cells))
    poses = integrate(np.concatenate(curvature), np.concatenate(lengths))
    heading = np.arctan2(into[0, 1], into[0, 0])
    cos, sin = np.cos(heading), np.sin(heading)
    xy = resample(poses[:-1, :2] @ np.array([[cos, sin], [-sin, cos]]), 0.25, closed=True)
    reach = np.arange(-12, 13)
    weight = np.exp(-0.5 * (reach * 0.25 / 0.9) ** 2)
    weight /= weight.sum()
    return np.asarray(sum(w * np.roll(xy, int(k), axis=0) for k, w in zip(reach, weight, strict=True)))


def _longest_straight(course: Course) -> int:
    """Index in the middle of the longest stretch straighter than 50 m radius: the start line goes there."""
    straight = np.abs(np.tile(course.curvature_1pm, 2)) < 0.02
    best, start, run = 0, 0, 0
    for index, value in enumerate(straight):
        run = run + 1 if value else 0
        if run > best:
            best, start = run, index - run // 2
    return start % len(course.xy)
