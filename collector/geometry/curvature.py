"""The one curvature labeller: straight, left, right or S, and where the curves of a line lie.

Dataset labels, the contradiction filter, the consistency score and the closed-loop curve segments all ask
this module, so that a curve means the same thing in every table. Pure numpy. A mirrored line gives exactly
the mirrored answer; turning or moving the map changes nothing beyond rounding.

Source of the formulas: the turn between two chords of equal arc length h that meet on a circle of radius R is
h / R, so ``turn / h`` is the curvature, averaged by a triangle of half-width h.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along
from collector.geometry.splines import EDGE_M, through_corners

Direction = Literal["left", "right", "straight"]
PathLabel = Literal["straight", "left", "right", "s"]
Grade = Literal["gentle", "medium", "sharp"]


@dataclass(frozen=True)
class CurveThresholds(Arguments):
    """Every number that decides a label; printed in every manifest."""

    window_s: float = argument(3.0, "how far ahead a reasoning speaks", 0.1, 1000.0)
    resample_m: float = argument(0.5, "spacing of the curvature profile", 0.01, 100.0)
    smooth_m: float = argument(
        1.5, "chord length of the curvature measurement; bends shorter than this are blurred", 0.01, 1000.0
    )
    curve_curvature_1pm: float = argument(0.04, "at least this much is a curve (0.04 = radius 25 m)", 1e-06, 100.0)
    min_turn_rad: float = argument(0.2, "a curve that turns less within the window is ignored", 1e-06, 10.0)
    merge_gap_m: float = argument(2.0, "curves of one direction closer than this are one curve", 1e-06, 1000.0)
    min_path_m: float = argument(2.0, "a path that gets less far than this has no direction", 1e-06, 1000.0)
    gentle_curvature_1pm: float = argument(0.08, "below, a bend is called gentle (0.08 = radius 12.5 m)", 1e-06, 100.0)
    sharp_curvature_1pm: float = argument(0.16, "above, a bend is called sharp (0.16 = radius 6.25 m)", 1e-06, 100.0)
    now_m: float = argument(3.0, 'a curve that begins nearer than this is "now", else "ahead"', 1e-06, 1000.0)
    speed_change_mps: float = argument(0.5, 'over the window, a smaller change of speed is "keep"', 1e-06, 100.0)
    stop_speed_mps: float = argument(0.3, 'a window that ends slower than this is "stop"', 1e-06, 100.0)
    speed_average_s: float = argument(0.5, "speeds at the window's ends are averaged over this long", 0.001, 1000.0)

    def grade(self, max_abs_curvature_1pm: float) -> Grade:
        """How tight a curve is."""
        if max_abs_curvature_1pm < self.gentle_curvature_1pm:
            return "gentle"
        return "sharp" if max_abs_curvature_1pm > self.sharp_curvature_1pm else "medium"

    def radius_bin(self, label: PathLabel, max_abs_curvature_1pm: float) -> str:
        """The bin of a path by label and radius: straight, or for example "left gentle", "s medium", "right sharp"."""
        return label if label == "straight" else f"{label} {self.grade(max_abs_curvature_1pm)}"


DEFAULT_THRESHOLDS = CurveThresholds()


@dataclass(frozen=True)
class CurveSegment:
    """One curve of a line: where it begins and ends (m along the line), which way, and how much.

    ``turn_rad`` is signed (left positive). On a closed line that is in a curve at its start, ``end_m`` of
    that curve lies beyond the length: it runs through the join.
    """

    start_m: float
    end_m: float
    direction: Literal["left", "right"]
    turn_rad: float
    max_abs_curvature_1pm: float


@dataclass(frozen=True)
class CurveLabel:
    """What a path does."""

    label: PathLabel  # straight, left, right, or s when it has curves both ways
    max_abs_curvature_1pm: float  # largest curvature anywhere on the path
    entry_m: float | None  # distance to the first curve, 0 when the path begins inside it, None when straight
    turn_rad: float  # signed turn of the first curve; of the whole path when straight
    direction: Direction  # direction of the first curve, or straight
    curves: tuple[CurveSegment, ...] = ()  # all curves in order


def curvature_profile(
    xy: ArrayLike, *, closed: bool = False, thresholds: CurveThresholds = DEFAULT_THRESHOLDS
) -> tuple[FloatArray, FloatArray]:
    """Signed curvature along a line, evenly sampled by ``resample_m`` and ``smooth_m`` of the thresholds.

    Points (N, 2) in metres have any spacing (metres apart, they are joined by cubic curves); a closed line may repeat
    its first point at the end. Returns ``s_m`` (M,) from 0 in equal steps (a closed line stops one step before its
    length) and the curvature (M,) in 1/m, left positive; near the ends of an open line the nearest measurable value is
    held.

    Raises:
        MonoError: not (N, 2), or non-finite points.
    """
    points = _checked(xy)
    points = points[np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > EDGE_M])]
    if closed and len(points) > 1 and np.linalg.norm(points[0] - points[-1]) <= EDGE_M:
        points = points[:-1]
    if len(points) < 2 or (closed and len(points) < 3):
        return np.zeros(1), np.zeros(1)
    dense = through_corners(points, thresholds.resample_m / 4.0, closed)
    along = distance_along(dense)
    length = float(along[-1])
    steps = max(int(np.floor(length / thresholds.resample_m + 0.5 + EDGE_M)), 4 if closed else 2)
    step_m = length / steps
    s_m: FloatArray = np.arange(steps if closed else steps + 1, dtype=np.float64) * step_m
    line = np.stack([np.interp(s_m, along, dense[:, 0]), np.interp(s_m, along, dense[:, 1])], axis=1)
    reach = max(1, int(np.floor(thresholds.smooth_m / step_m + 0.5 + EDGE_M)))
    reach = min(reach, steps // 2)
    if closed:
        behind, ahead = line - np.roll(line, reach, axis=0), np.roll(line, -reach, axis=0) - line
        return s_m, _turn(behind, ahead) / (reach * step_m)
    chords = line[reach:] - line[:-reach]
    measured = _turn(chords[:-reach], chords[reach:]) / (reach * step_m)
    tail = len(s_m) - reach - len(measured)
    return s_m, np.concatenate([np.repeat(measured[:1], reach), measured, np.repeat(measured[-1:], tail)])


def find_curves(
    s_m: ArrayLike, curvature_1pm: ArrayLike, *, closed: bool = False, thresholds: CurveThresholds = DEFAULT_THRESHOLDS
) -> tuple[CurveSegment, ...]:
    """The curves, in driving order, of a profile as :func:`curvature_profile` gives it: two (M,), evenly spaced."""
    s, kappa = np.asarray(s_m, np.float64), np.asarray(curvature_1pm, np.float64)
    if len(s) < 2:
        return ()
    step_m = float(s[1] - s[0])
    limit = thresholds.curve_curvature_1pm
    origin_m = 0.0
    if closed:
        # Cut the loop at its straightest point: no curve then runs through the cut (a circle has none: any will do).
        cut = int(np.argmin(np.abs(kappa)))
        origin_m = float(s[cut])
        kappa = np.concatenate([np.roll(kappa, -cut), kappa[cut : cut + 1]])
        s = np.arange(len(kappa), dtype=np.float64) * step_m
    side = np.where(np.abs(kappa) >= limit, np.sign(kappa), 0.0)
    curves = []
    for start_m, end_m, sign in _merge(_runs(s, kappa, side, limit), thresholds.merge_gap_m):
        turn_rad = _integral(s, kappa, start_m, end_m)
        inside = (s >= start_m) & (s <= end_m)
        if abs(turn_rad) < thresholds.min_turn_rad or not inside.any():
            continue
        direction: Literal["left", "right"] = "left" if sign > 0 else "right"
        sharpest = float(np.max(np.abs(kappa[inside])))
        curves.append(CurveSegment(start_m + origin_m, end_m + origin_m, direction, turn_rad, sharpest))
    if closed:
        length_m = step_m * (len(kappa) - 1)
        for index, curve in enumerate(curves):
            if curve.start_m >= length_m - EDGE_M:
                curves[index] = replace(curve, start_m=curve.start_m - length_m, end_m=curve.end_m - length_m)
        curves.sort(key=lambda curve: curve.start_m)
    return tuple(curves)


def label_path(xy: ArrayLike, thresholds: CurveThresholds = DEFAULT_THRESHOLDS) -> CurveLabel:
    """Label a path (N, 2) in metres, straight if too short for a direction (MonoError: not (N, 2), or not finite)."""
    points = _checked(xy)
    reach_m = float(np.max(np.linalg.norm(points - points[:1], axis=1))) if len(points) else 0.0
    if reach_m < thresholds.min_path_m:
        return CurveLabel("straight", 0.0, None, 0.0, "straight")
    s_m, kappa = curvature_profile(points, thresholds=thresholds)
    curves = find_curves(s_m, kappa, thresholds=thresholds)
    sharpest = float(np.max(np.abs(kappa)))
    if not curves:
        return CurveLabel("straight", sharpest, None, _integral(s_m, kappa, 0.0, float(s_m[-1])), "straight")
    first = curves[0]
    both = any(curve.direction != first.direction for curve in curves)
    label: PathLabel = "s" if both else first.direction
    return CurveLabel(label, sharpest, first.start_m, first.turn_rad, first.direction, curves)


def _checked(xy: ArrayLike) -> FloatArray:
    points = np.asarray(xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise MonoError(f"a line of shape {points.shape}", "(N, 2) points x, y in metres", "pass poses[:, :2]")
    if not np.isfinite(points).all():
        raise MonoError("a line with non-finite points", "finite metres", "drop this path and count it")
    # Map coordinates of tens of kilometres would cost digits in every difference below.
    return points - points[:1]


def _turn(before: FloatArray, after: FloatArray) -> FloatArray:
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.asarray(np.arctan2(cross, np.sum(before * after, axis=1)))


def _runs(s: FloatArray, kappa: FloatArray, side: FloatArray, limit: float) -> list[tuple[float, float, float]]:
    """(start_m, end_m, sign) of each stretch on one side, its ends where the limit is crossed."""
    runs = []
    edges = np.flatnonzero(np.diff(side)) + 1
    for first, last in zip(np.concatenate([[0], edges]), np.concatenate([edges, [len(s)]]) - 1, strict=True):
        sign = float(side[first])
        if sign == 0.0:
            continue
        start_m, end_m = float(s[first]), float(s[last])
        if first > 0:
            start_m = _crossing(s[first - 1], sign * kappa[first - 1], s[first], sign * kappa[first], limit)
        if last < len(s) - 1:
            end_m = _crossing(s[last + 1], sign * kappa[last + 1], s[last], sign * kappa[last], limit)
        runs.append((start_m, end_m, sign))
    return runs


def _crossing(s_below: float, below: float, s_above: float, above: float, limit: float) -> float:
    return float(s_above + (s_below - s_above) * (above - limit) / (above - below))


def _merge(runs: list[tuple[float, float, float]], gap_m: float) -> list[tuple[float, float, float]]:
    merged: list[tuple[float, float, float]] = []
    for start_m, end_m, sign in runs:
        joins = merged and merged[-1][2] == sign and start_m - merged[-1][1] < gap_m
        merged.append((merged.pop()[0] if joins else start_m, end_m, sign))
    return merged


def _integral(s: FloatArray, kappa: FloatArray, start_m: float, end_m: float) -> float:
    """Turn in rad between two places: the trapezoid rule on the piecewise linear curvature."""
    inner = s[(s > start_m) & (s < end_m)]
    at = np.concatenate([[start_m], inner, [end_m]])
    value = np.interp(at, s, kappa)
    return float(np.sum(np.diff(at) * (value[1:] + value[:-1])) / 2.0)
