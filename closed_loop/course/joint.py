"""Where the ends of a lap meet: cut where the line passes its own start, joined, and bent where they lie aside.

Headings are those of steps of a metre or more, so that a dense line's noise is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot

import numpy as np

from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along, tangent_yaw, wrap_angle
from collector.geometry.splines import resample

# A line is looked at in steps of this; standing still and its noise are one point.
LOOK_M = 1.0
FARTHEST_M = 50.0  # a wider gap is bridged, not bent away
AHEAD = 0.25  # cosine: ends are joined when the gap leads ahead of both, within 75 degrees
STRAIGHT_ON = 0.95  # cosine of 18 degrees: a line that passes its start more across than that turns off there
KINK_1PM = 0.15  # a gap that leads aside so sharply is a step to be blended away
NOISE_M = 0.03  # a step aside that no kart feels
BLEND_M = 10.0  # at least so long is the stretch on which a step aside is taken back
BLEND_CURVATURE_1PM = 0.02  # and so long that it bends the line by no more than this
STARTS = 6  # so many points of the line, one after the other, are tried as the lap's first
MOST_BEND = 1.2  # a join is smooth that bends by no more than the lap elsewhere, times this
KINKED = 1.4  # and a kink that bends by more than that, times this


@dataclass(frozen=True)
class Lap:
    """A line's points (N, 2 or 4), whether the last joins the first, and what was left out, closed or bent."""

    table: FloatArray
    closed: bool
    said: list[str] = field(default_factory=list)


def smoothly_cut(table: FloatArray, first: int, last: float, reach_m: float, wanted: bool) -> tuple[int, Lap]:
    """The lap from about the point ``first`` to where the line passes it again, near ``last``; and its first point.

    Where its ends make a kink, it begins at one of the next points: the last ones of a lead-in lie beside the lap.

    Raises:
        MonoError: a kink at each of them, and nobody ``wanted`` it closed all the same.
    """
    along, numbers = distance_along(table[:, :2]), np.arange(len(table))
    last_m = np.interp(last, numbers, along) - along[first]
    near_m = max(BLEND_M, 3.0 * float(np.median(np.diff(along))))
    start, found = first, list[tuple[float, int, Lap]]()
    while len(found) < STARTS and (start == first or start < len(table) - 4):
        lap = _cut(table, start, float(np.interp(along[start] + last_m, along, numbers)), reach_m)
        found.append((_kink(lap.table[:, :2], near_m), start, lap))
        if found[-1][0] <= 1.0:
            break
        start = int(np.searchsorted(along, along[start] + LOOK_M))
    kink, start, lap = min(found, key=lambda each: each[0])
    if kink > KINKED and not wanted:
        x, y = table[first, :2]
        what = f"a lap whose ends meet in a kink near ({x:.1f}, {y:.1f})"
        expected = "a line that comes back to its start in the same direction"
        raise MonoError(what, expected, "cut the file to one lap, or take it with closed or with open")
    return start, lap


def _kink(xy: FloatArray, near_m: float) -> float:
    """How much more a closed line bends within ``near_m`` of its join than elsewhere (:data:`KINK_1PM` is no bend)."""
    line = resample(xy, 0.5 * LOOK_M, closed=True)
    yaw = tangent_yaw(line, closed=True)
    run = np.linalg.norm(np.roll(line, -1, axis=0) - line, axis=1)
    bend = np.abs(wrap_angle(np.roll(yaw, -2) - yaw)) / (2.0 * float(run.mean()))
    at_join = np.minimum(np.arange(len(line)), len(line) - np.arange(len(line))) * float(run.mean()) <= near_m
    own = float(bend[~at_join].max()) if not at_join.all() else np.inf
    return float(bend[at_join].max()) / (MOST_BEND * max(own, KINK_1PM))


def _cut(table: FloatArray, first: int, last: float, reach_m: float) -> Lap:
    """The points from ``first`` on to where the line passes it again, near ``last``; a step aside is blended away."""
    xy = table[:, :2]
    ahead = _heading(xy[first:])
    before = (xy - xy[first]) @ ahead
    aside = (xy - xy[first]) @ np.array([-ahead[1], ahead[0]])
    passes = [
        i
        for i in range(max(first + 2, int(last) - round(len(xy) / 4) - 2), len(xy) - 1)
        if before[i] <= 0.0 < before[i + 1] and abs(aside[i]) <= 2.0 * reach_m
    ]
    spacing = float(np.median(np.linalg.norm(np.diff(xy, axis=0), axis=1)))
    if not passes:
        behind_m = float(distance_along(xy[int(last) :])[-1])
        return joined(table[first:] if behind_m <= 2.0 * reach_m else table[first : round(last) + 1], True)
    gate = passes[int(np.argmin(np.abs(np.array(passes) - last)))]
    share = -before[gate] / (before[gate + 1] - before[gate])
    end = table[gate] + share * (table[gate + 1] - table[gate])
    if gate + 1 == len(xy) - 1 and np.linalg.norm(xy[-1] - xy[first]) < 0.35 * spacing:
        return joined(table[first:], True)  # ends where it began
    if -_heading(xy[gate + 1 :: -1]) @ ahead < STRAIGHT_ON:
        return joined(table[first : gate + 1], True)  # turns off there, or bends so tightly that its end says no more
    row = np.vstack([table[first : gate + 1], end])
    step_m = float((end[:2] - xy[first]) @ np.array([-ahead[1], ahead[0]]))
    row, said = _blend(row, step_m)
    keep = -2 if np.linalg.norm(row[-2, :2] - row[-1, :2]) < 0.35 * spacing else -1
    return Lap(row[:keep], True, said)


def joined(table: FloatArray, closed: bool | None) -> Lap:
    """The whole line: closed when its ends meet and lead on to one another (or ``closed`` says so), else open."""
    xy = table[:, :2]
    spacing = float(np.median(np.linalg.norm(np.diff(xy, axis=0), axis=1)))
    between = xy[0] - xy[-1]
    gap = float(np.linalg.norm(between))
    out, back = -_heading(xy[::-1]), _heading(xy)
    aside_m = float(-between @ np.array([-back[1], back[0]]))
    if gap < 0.35 * spacing:  # the file repeats its start
        kinks = abs(aside_m) > max(NOISE_M, BLEND_CURVATURE_1PM * spacing**2)
        bent, said = _blend(table, aside_m) if kinks else (table, [])
        return Lap(bent[:-1], True, said)
    on = min(between @ out, between @ back) / gap
    if closed is None and not (gap < 2.5 * spacing and on > AHEAD):
        ends = f"({xy[-1, 0]:.1f}, {xy[-1, 1]:.1f}), {gap:.1f} m from its start"
        aside = " and beside it" if gap < 2.5 * spacing else ""
        return Lap(table, False, [f"it ends at {ends}{aside} (to join them: FILE:closed)"])
    said = [f"its ends, {gap:.1f} m apart, are joined"] if gap > 2.5 * spacing else []
    # On an arc the gap leads along the mean of both headings.
    middle = (out + back) / max(float(np.linalg.norm(out + back)), 1e-9)
    aside_m = float(between @ np.array([middle[1], -middle[0]]))
    bend_1pm = 2.0 * float(np.arctan2(abs(aside_m), between @ middle)) / gap
    if bend_1pm > KINK_1PM and gap < FARTHEST_M:
        table, blended = _blend(table, aside_m)
        table = table[:-1] if np.linalg.norm(table[-1, :2] - table[0, :2]) < 0.35 * spacing else table
        said += blended
    return Lap(table, True, said)


def _blend(table: FloatArray, step_m: float) -> tuple[FloatArray, list[str]]:
    """The line with its end moved ``step_m`` to the right, its last stretch bent smoothly to it; and a word on it."""
    if abs(step_m) < max(NOISE_M, _wobble_m(table[:, :2])):
        return table, []
    along = distance_along(table[:, :2])
    # The steepest bend of the blend 6 t^5 - 15 t^4 + 10 t^3 is 5.8 steps over its length squared.
    length_m = min(max(BLEND_M, float(np.sqrt(5.8 * abs(step_m) / BLEND_CURVATURE_1PM))), 0.5 * float(along[-1]))
    t = ((along - along[-1] + length_m) / length_m).clip(0.0, 1.0)
    right_m = step_m * t**3 * (6.0 * t**2 - 15.0 * t + 10.0)
    kept = apart(table[:, :2], LOOK_M)
    kept = kept[: -2 if along[kept[-1]] - along[kept[-2]] < LOOK_M else None]
    step = np.gradient(table[kept, :2], axis=0)
    step = np.stack([np.interp(along, along[kept], step[:, k]) for k in (0, 1)], axis=1)
    left = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.linalg.norm(step, axis=1)[:, None]
    bent = table.copy()
    bent[:, :2] -= right_m[:, None] * left
    if table.shape[1] == 4:  # the road stays where it is
        bent[:, 2] += right_m
        bent[:, 3] -= right_m
    return bent, [
        f"its ends lie {abs(step_m):.1f} m beside one another, the last {length_m:.0f} m are bent to close it"
    ]


def apart(xy: FloatArray, least_m: float) -> list[int]:
    """The first point, those that lie so far from the one kept before, and the last."""
    kept = [0]
    x, y = xy.T.tolist()
    for i in range(1, len(x)):
        if hypot(x[i] - x[kept[-1]], y[i] - y[kept[-1]]) >= least_m or i == len(x) - 1:
            kept.append(i)
    return kept


def _wobble_m(xy: FloatArray) -> float:
    """How far the points of a dense line lie beside their neighbours' middle, times four; 0 where it is not dense."""
    if np.median(np.linalg.norm(np.diff(xy, axis=0), axis=1)) > 0.5 * LOOK_M:
        return 0.0
    return 2.0 * float(np.median(np.linalg.norm(np.diff(xy, n=2, axis=0), axis=1)))


def _heading(xy: FloatArray) -> FloatArray:
    """The direction (2,) in which a line begins: to its first point a step away."""
    for point in xy[1:]:
        if hypot(*(point - xy[0])) >= LOOK_M:
            break
    return np.asarray((point - xy[0]) / max(hypot(*(point - xy[0])), 1e-9))
