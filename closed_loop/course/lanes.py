"""Lanes of a map: their bounds in driving direction, and the middle of the road between the bounds of a row of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np

from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along
from collector.geometry.splines import resample

STEP_M = 0.5
EDGE_STEP_M = 0.25
SMOOTH_M = 1.2
SAME_PLACE_M = 0.05
LONG_M, PIECE_M = 100.0, 20.0  # longer lanes are looked at in pieces


@dataclass(frozen=True, eq=False)
class Lane:
    """One lanelet: its bounds (N, 2) in driving direction."""

    name: str
    left: FloatArray
    right: FloatArray

    @property
    def length_m(self) -> float:
        """Mean length of its bounds."""
        return 0.5 * float(distance_along(self.left)[-1] + distance_along(self.right)[-1])

    def middle(self, pieces: int) -> FloatArray:
        """(pieces + 1, 2) points midway between equal shares of its bounds."""
        sides = [(bound, distance_along(bound)) for bound in (self.left, self.right)]
        left, right = (_along(bound, along, np.linspace(0.0, along[-1], pieces + 1)) for bound, along in sides)
        return 0.5 * (left + right)

    def leads_to(self, other: Lane) -> bool:
        """Both bounds continue in the other lane's."""
        return bool(
            np.linalg.norm(self.left[-1] - other.left[0]) < SAME_PLACE_M
            and np.linalg.norm(self.right[-1] - other.right[0]) < SAME_PLACE_M
        )


def oriented(name: str, left: FloatArray, right: FloatArray) -> Lane:
    """A lane whose bounds run the same way, left one on the left: files may list a bound backwards."""
    ahead = np.linalg.norm(left[0] - right[0]) + np.linalg.norm(left[-1] - right[-1])
    crossed = np.linalg.norm(left[0] - right[-1]) + np.linalg.norm(left[-1] - right[0])
    if crossed < ahead:
        right = right[::-1]
    area = np.vstack([left, right[::-1]])  # left out and right back: clockwise when left is on the left
    turned = np.roll(area, -1, axis=0)
    origin = area.mean(axis=0)
    a, b = area - origin, turned - origin
    if float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) > 0.0:
        left, right = left[::-1], right[::-1]
    return Lane(name, left, right)


def joined(ways: list[FloatArray]) -> list[FloatArray]:
    """The lines that the ways of a bound make, the longest first: a bound may be cut, in any order and direction."""
    lines = [way for way in ways if len(way) >= 2]
    while (found := _continuation(lines)) is not None:
        (i, j), line = found
        lines = [*(other for k, other in enumerate(lines) if k not in (i, j)), line]
    return sorted(lines, key=lambda line: float(distance_along(line)[-1]), reverse=True)


def _continuation(lines: list[FloatArray]) -> tuple[tuple[int, int], FloatArray] | None:
    """The first two lines of which one goes on where the other ends, and the line they make."""
    for i, j in permutations(range(len(lines)), 2):
        for onward in (lines[j], lines[j][::-1]):
            if np.linalg.norm(lines[i][-1] - onward[0]) < SAME_PLACE_M:
                return (i, j), np.vstack([lines[i], onward[1:]])
    return None


def centreline(loop: list[Lane], closed: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The line that is everywhere as far from the left bound as from the right one, and those distances.

    Starts from the middles of equal shares of each lane's bounds and is pulled, round after round, to the middle
    between the nearest points of both bounds.

    Raises:
        MonoError: bounds between which no line runs.
    """
    loop = [piece for lane in loop for piece in _pieces(lane)]
    bounds: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    at_lane: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    middle: list[FloatArray] = []
    done_m = 0.0
    for index, lane in enumerate(loop):
        share = np.linspace(0.0, 1.0, max(4, round(lane.length_m / STEP_M)) + 1)[:-1]
        sides = []
        for k, bound in enumerate((lane.left, lane.right)):
            along = distance_along(bound)
            fine = np.linspace(0.0, 1.0, max(4, round(along[-1] / EDGE_STEP_M)) + 1)
            fine = fine if index == len(loop) - 1 and not closed else fine[:-1]
            bounds[k].append(_along(bound, along, fine * along[-1]))
            at_lane[k].append(done_m + fine * lane.length_m)
            sides.append(_along(bound, along, share * along[-1]))
        middle.append(0.5 * (sides[0] + sides[1]))
        done_m += lane.length_m
    if not closed:
        middle.append(0.5 * (loop[-1].left[-1:] + loop[-1].right[-1:]))
    edges = [np.vstack(side) for side in bounds]
    stations = [np.concatenate(side) for side in at_lane]
    line = resample(np.vstack(middle), STEP_M, closed)
    for _ in range(12):
        feet = [_nearest(line, edge, station, done_m, closed) for edge, station in zip(edges, stations, strict=True)]
        line = _smooth(0.5 * (feet[0] + feet[1]), 0.5, closed)
        stands = np.linalg.norm(np.diff(line, axis=0), axis=1) < 1e-6
        if stands.any():  # many places of the line have one nearest point
            x, y = line[int(stands.argmax())]
            found = f"no line runs midway between the bounds near ({x:.1f}, {y:.1f})"
            raise MonoError(found, "bounds that run beside one another", "correct them, or name other lanes")
        line = resample(line, STEP_M, closed)
    # A corner of an edge makes the exact middle line kink; a road is driven on a smooth one.
    line = resample(_smooth(line, SMOOTH_M, closed), STEP_M, closed)
    left, right = (
        np.linalg.norm(line - _nearest(line, edge, station, done_m, closed), axis=1)
        for edge, station in zip(edges, stations, strict=True)
    )
    return line, left, right


def _pieces(lane: Lane) -> list[Lane]:
    """A long lane cut across where its bounds lie opposite one another: of a whole circuit the outer one is longer.

    From a place on both bounds, the next step is taken on that one on which it keeps the other nearer.
    """
    if lane.length_m <= LONG_M:
        return [lane]
    left, right = (_with_steps(bound, 1.0) for bound in (lane.left, lane.right))
    i = j = 0
    cuts = [(0, 0)]
    left_m, right_m = distance_along(left), distance_along(right)
    while i < len(left) - 1 and j < len(right) - 1:
        if np.hypot(*(left[i + 1] - right[j])) < np.hypot(*(left[i] - right[j + 1])):
            i += 1
        else:
            j += 1
        if min(left_m[i] - left_m[cuts[-1][0]], right_m[j] - right_m[cuts[-1][1]]) >= PIECE_M:
            cuts.append((i, j))
    if len(cuts) > 1:
        cuts.pop()  # what is left behind the last may be short on one side
    cuts.append((len(left) - 1, len(right) - 1))
    return [Lane(lane.name, left[a : b + 1], right[c : d + 1]) for (a, c), (b, d) in pairwise(cuts)]


def _with_steps(line: FloatArray, step_m: float) -> FloatArray:
    """The line with points between its own, at most a step apart."""
    along = distance_along(line)
    return _along(line, along, np.union1d(along, np.arange(0.0, along[-1], step_m)))


def _smooth(line: FloatArray, sigma_m: float, closed: bool) -> FloatArray:
    """Gaussian along the line; the ends of an open one stay."""
    reach = int(np.ceil(3.0 * sigma_m / STEP_M))
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP_M / sigma_m) ** 2)
    if closed:
        wide = np.vstack([line[-reach:], line, line[:reach]])
    else:  # point reflection keeps ends and end slopes
        wide = np.vstack([2 * line[0] - line[reach:0:-1], line, 2 * line[-1] - line[-2 : -reach - 2 : -1]])
    return np.stack([np.convolve(wide[:, k], weight / weight.sum(), "valid") for k in (0, 1)], axis=1)


def _along(line: FloatArray, along_m: FloatArray, at_m: FloatArray) -> FloatArray:
    return np.stack([np.interp(at_m, along_m, line[:, 0]), np.interp(at_m, along_m, line[:, 1])], axis=1)


def _nearest(
    line: FloatArray, edge: FloatArray, edge_at_m: FloatArray, length_m: float, closed: bool, reach_m: float = 15.0
) -> FloatArray:
    """For each point of the line the nearest edge point that belongs to about the same place of the loop.

    Only edge points within ``reach_m`` along the loop are looked at: time and memory grow with the length alone.
    """
    at = np.arange(len(line)) / len(line) * length_m
    numbers = np.arange(len(edge))
    if closed:  # once more before and behind
        numbers = np.tile(numbers, 3)
        edge_at_m = np.concatenate([edge_at_m - length_m, edge_at_m, edge_at_m + length_m])
    first = np.searchsorted(edge_at_m, at - reach_m, side="left")
    last = np.searchsorted(edge_at_m, at + reach_m, side="right")
    within = first[:, None] + np.arange(max(1, int((last - first).max())))
    candidates = numbers[within.clip(0, len(numbers) - 1)]
    gap = np.hypot(line[:, None, 0] - edge[candidates, 0], line[:, None, 1] - edge[candidates, 1])
    gap[within >= last[:, None]] = np.inf
    nearest: FloatArray = edge[candidates[np.arange(len(line)), gap.argmin(axis=1)]]
    return nearest
