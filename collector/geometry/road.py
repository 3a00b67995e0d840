"""The piece of road that lies ahead of a kart: its middle line, its edges and the usual speed, in the ego frame.

A course in the simulator gives one exactly; of recorded drives neighbouring laps give the line and the speed, and no
edges. Whatever asks where on the road a path runs asks here. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.pinhole import KART_FRONT_M, KART_REAR_M, KART_WIDTH_M
from collector.geometry.poses import FloatArray, to_map

# x_m, y_m, left_m, right_m, usual_mps
RoadNumbers: TypeAlias = tuple[float, float, float, float, float]
_CORNERS = np.array([(x, side * KART_WIDTH_M / 2.0, 0.0) for x in (KART_FRONT_M, -KART_REAR_M) for side in (1.0, -1.0)])
# How far along the line the foot of the next point may be: a path does not leap to a stretch beside its own.
_REACH_M = 4.0


@dataclass(frozen=True, eq=False)
class LocalRoad:
    """The road ahead of one pose; at least two points, at least one of them ahead."""

    xy: FloatArray  # (N, 2) its middle line in the ego frame, about a metre apart, in driving order
    left_m: FloatArray  # (N,) from that line to the left edge, 0 where it is not known
    right_m: FloatArray  # (N,) and to the right one
    usual_mps: FloatArray  # (N,) how fast it is usually driven there, 0 where that is not known

    @classmethod
    def of_rows(cls, rows: Sequence[RoadNumbers]) -> LocalRoad | None:
        """Of the rows of a sample; None where there are too few: the road is not known."""
        if len(rows) < 2:
            return None
        table = np.asarray(rows, np.float64)
        return cls(table[:, :2], table[:, 2], table[:, 3], table[:, 4])

    def rows(self) -> tuple[RoadNumbers, ...]:
        """As plain numbers, to a millimetre."""
        table = np.round(np.column_stack([self.xy, self.left_m, self.right_m, self.usual_mps]), 3) + 0.0
        return tuple((x, y, left, right, speed) for x, y, left, right, speed in table.tolist())

    @property
    def length_m(self) -> float:
        """Of the line."""
        return float(self._along_m[-1])

    @property
    def _along_m(self) -> FloatArray:
        steps = np.linalg.norm(np.diff(self.xy, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def feet(self, xy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Where along the line the points (M, 2) of a path lie, and how far left of it; (M,) metres each.

        The first point is looked for within a few metres of where the kart stands, each other one near its forerunner.
        """
        points, along = np.asarray(xy, np.float64), self._along_m
        start, step = self.xy[:-1], np.diff(self.xy, axis=0)
        length = np.maximum(np.linalg.norm(step, axis=1), 1e-9)
        unit = step / length[:, None]
        at_m = float(along[int(np.argmin(np.linalg.norm(self.xy, axis=1)))])
        stations, offsets = np.empty(len(points)), np.empty(len(points))
        for number, point in enumerate(points):
            near = (along[1:] >= at_m - _REACH_M) & (along[:-1] <= at_m + _REACH_M)
            first = int(np.argmax(near))
            gap = point - start[near]
            part = np.clip(np.sum(gap * unit[near], axis=1), 0.0, length[near])
            away = gap - part[:, None] * unit[near]
            best = int(np.argmin(np.sum(away * away, axis=1)))
            heading = unit[first + best]
            at_m = float(along[first + best] + part[best])
            stations[number] = at_m
            offsets[number] = heading[0] * gap[best, 1] - heading[1] * gap[best, 0]
        return stations, offsets

    def covers(self, xy: ArrayLike) -> bool:
        """Whether the line reaches as far as the path (M, 2) does."""
        stations, _ = self.feet(xy)
        return bool(stations[-1] < self.length_m - 1e-6)

    def walked(self, xy: ArrayLike) -> FloatArray | None:
        """The middle line walked at the pace of a path (M, 2): as many points, (M, 2); None where the line ends before.

        The first point is the one beside the path's first, each other one as far along as the path has come.
        """
        points, along = np.asarray(xy, np.float64), self._along_m
        stations = self.feet(points[:1])[0][0] + np.concatenate(
            [[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
        )
        if stations[-1] >= self.length_m - 1e-6:
            return None
        return np.column_stack([np.interp(stations, along, self.xy[:, axis]) for axis in (0, 1)])

    def usual_at(self, station_m: FloatArray) -> FloatArray:
        """The usual speed at places along the line, m/s."""
        return np.interp(station_m, self._along_m, self.usual_mps)

    def beyond_edges(self, poses: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """How far the kart's outline at poses (M, 3) reaches over the left and the right edge; negative on the road.

        NaN where the edges are not known.
        """
        path = np.asarray(poses, np.float64)
        corners = to_map(_CORNERS, path[:, None, :])[..., :2]
        along = self._along_m
        feet = [self.feet(corners[:, corner]) for corner in range(len(_CORNERS))]
        stations, offsets = (np.stack([each[part] for each in feet]) for part in (0, 1))
        left, right = (np.interp(stations, along, edge) for edge in (self.left_m, self.right_m))
        return (
            np.where(left > 0.0, offsets - left, np.nan).max(axis=0),
            np.where(right > 0.0, -offsets - right, np.nan).max(axis=0),
        )

    def mirrored(self) -> LocalRoad:
        """As a mirror shows it."""
        return LocalRoad(self.xy * (1.0, -1.0), self.right_m, self.left_m, self.usual_mps)
