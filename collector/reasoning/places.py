"""What a path makes of a manner: where beside the middle of the road it runs, and how fast against what is usual there.

Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from collector.geometry.constants import STEP_S
from collector.geometry.pinhole import KART_WIDTH_M
from collector.geometry.poses import FloatArray
from collector.geometry.road import LocalRoad
from collector.reasoning.claims import PaceClaim, PositionClaim
from collector.reasoning.manners import Pace


@dataclass(frozen=True)
class MannerThresholds:
    """Every number that decides where on the road, and how fast, a path was driven; in the manifests of such data."""

    side_m: float = 0.4  # at least so far beside the middle is left or right of it, less is the middle
    position_s: float = 1.0  # the end of the reasoning's window over which place and pace are averaged
    slow_share: float = 0.8  # of the usual speed, and below, is slow
    brisk_share: float = 1.1  # of the usual speed, and above, is brisk


DEFAULT_MANNER_THRESHOLDS = MannerThresholds()


@dataclass(frozen=True)
class Place:
    """Where on the road a path runs, metres left of its middle, and how fast."""

    start_m: float  # at t0
    offset_m: float  # mean over the end of the reasoning's window
    end_m: float  # at the end of the horizon
    most_left_m: float  # farthest left on the way
    most_right_m: float  # farthest right: the smallest offset
    usual_share: float | None  # of the usual speed, over the end of the window; None where that is not known
    room_left_m: float | None  # least there is for the kart left of the middle within the window; None: not known
    room_right_m: float | None  # the same right of it

    def position(self, thresholds: MannerThresholds = DEFAULT_MANNER_THRESHOLDS) -> PositionClaim:
        """Where it runs at the end of the window."""
        if abs(self.offset_m) < thresholds.side_m:
            return "middle"
        return "left" if self.offset_m > 0.0 else "right"

    def goes_out(
        self, side: Literal["left", "right"], thresholds: MannerThresholds = DEFAULT_MANNER_THRESHOLDS
    ) -> bool:
        """Whether it pulls out to a side and comes back to where it began."""
        left, back = side == "left", max(self.start_m, self.end_m)
        out_m = self.most_left_m - back if left else min(self.start_m, self.end_m) - self.most_right_m
        return out_m >= thresholds.side_m

    def pace(self, thresholds: MannerThresholds = DEFAULT_MANNER_THRESHOLDS) -> Pace | None:
        """How fast, None where the usual is not known."""
        if self.usual_share is None:
            return None
        if self.usual_share <= thresholds.slow_share:
            return "slow"
        return "brisk" if self.usual_share >= thresholds.brisk_share else "usual"

    def agrees(self, claim: PositionClaim) -> bool:
        """Whether a text that claims this place is true of the path."""
        if claim in ("out left", "out right"):
            return self.goes_out("left" if claim == "out left" else "right")
        return claim == self.position()


def measure_place(
    road: LocalRoad,
    future: ArrayLike,
    window_s: float,
    dt_s: float = STEP_S,
    thresholds: MannerThresholds = DEFAULT_MANNER_THRESHOLDS,
) -> Place | None:
    """Where a future (N, 2 or 3), poses at dt_s, 2 dt_s, ..., runs on the road.

    None where the road ends before the reasoning's window does.
    """
    path = np.concatenate([np.zeros((1, 2)), np.asarray(future, np.float64)[:, :2]])
    window = min(len(path) - 1, max(2, round(window_s / dt_s)))
    tail = slice(max(1, window - round(thresholds.position_s / dt_s) + 1), window + 1)
    station, offset = road.feet(path)
    known = station < road.length_m - 1e-6
    if not known[: window + 1].all():
        return None
    last = int(np.flatnonzero(known)[-1])
    usual = road.usual_at(station[tail])
    driven = np.linalg.norm(np.diff(path, axis=0), axis=1)[tail.start - 1 : tail.stop - 1] / dt_s
    share = float(np.mean(driven / usual)) if usual.min() > 0.0 else None
    rooms = [_room(road, edge, station[: window + 1]) for edge in (road.left_m, road.right_m)]
    seen = offset[: last + 1]
    return Place(
        float(offset[0]),
        float(np.mean(offset[tail])),
        float(seen[-1]),
        float(seen.max()),
        float(seen.min()),
        share,
        rooms[0],
        rooms[1],
    )


def _room(road: LocalRoad, edge_m: FloatArray, stations_m: FloatArray) -> float | None:
    """How far the kart's middle may go to a side before its own edge reaches the road's, at the narrowest place."""
    steps = np.linalg.norm(np.diff(road.xy, axis=0), axis=1)
    edges = np.interp(stations_m, np.concatenate([[0.0], np.cumsum(steps)]), edge_m)
    return float(edges.min()) - KART_WIDTH_M / 2.0 if edges.min() > 0.0 else None


def pace_claim(pace: Pace) -> PaceClaim:
    """What a text claims that speaks of a pace; of the usual one none does."""
    return "none" if pace == "usual" else pace
