"""One lap out of a line that somebody drove or drew: without what lies before and behind it, its ends joined.

A line of a file may lead in from the garage, run past its own start, or go round several times. Where it comes back to
itself (near, in the same direction) a lap is complete.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from math import dist, hypot

import numpy as np

from closed_loop.course.joint import LOOK_M, Lap, apart, joined, smoothly_cut
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along

SHORTEST_M = 20.0
TREMBLING = 5.0  # a way so many times longer than the step it stays within is noise
SAME_HEADING = 0.7  # cosine: a line that comes back runs within 45 degrees of itself
ANGLE_M = 10.0  # a radian of difference in heading is as bad a join as so much of distance
ALONG_M = 50.0  # how far beside itself a line is followed, to find where it comes nearest
START_SLACK_M = 1.0  # a lap begins at the line's first point unless it comes back nearer to another by more than this
BACK, ASKEW, ONWARD = -0.8, -0.5, 0.5  # cosines: a line turns back by more than 143 or 120 degrees, goes on within 60
MOST_ASKEW = 20  # turns by more than 120 degrees; a line drawn with few points has one in a hairpin
ALIKE = 1.1  # rounds whose lengths differ by more than this factor are loops of different roads


def lap_of(table: FloatArray, reach_m: float, closed: bool | None = None, wanted: int | None = None) -> Lap:
    """The lap of a line of distinct points (N, 2), or (N, 4) with the widths to the left and to the right.

    Stretches nearer than ``reach_m`` are on the same road. ``closed`` True joins the ends however far apart, False
    leaves the line as it is; ``wanted`` names the round of several, from 1.

    Raises:
        MonoError: a lap that turns back on itself, rounds of different lengths and none wanted, or none of that number.
    """
    table, stood = _moving(table)
    table, stepped = _onward(table)
    stood += stepped
    if closed is False:
        lap = Lap(table, False, [*stood, "left open, as asked"])
    elif len(_places_back(table[:, :2], ASKEW)) > MOST_ASKEW:
        lap = Lap(table, False)  # in no order, and long to search for laps
    else:
        lap = _lap_of(table, reach_m, closed, wanted, stood)
    _check_onward(lap.table[:, :2])
    if lap.closed and len(back := _places_back(np.vstack([lap.table[-2:], lap.table[:2]])[:, :2])):
        found = f"a line that turns back on itself at ({back[0, 0]:.1f}, {back[0, 1]:.1f}) where its ends are joined"
        raise MonoError(found, "ends that lead on to one another", "close the gap in the file, or take it with open")
    return lap


def _lap_of(table: FloatArray, reach_m: float, closed: bool | None, wanted: int | None, stood: list[str]) -> Lap:
    """The lap of a line whose points move on."""
    xy = table[:, :2]
    rounds = _rounds(xy, reach_m)
    if wanted is not None and not 1 <= wanted <= max(1, len(rounds)):
        raise MonoError(f"no lap {wanted} of {max(1, len(rounds))}", "one of its laps", "name another with lap=N")
    if not rounds:
        lap = joined(table, closed)
        return Lap(lap.table, lap.closed, stood + lap.said)
    along = distance_along(xy)
    ends_m = [float(np.interp(last, range(len(xy)), along)) for _, last in rounds]
    lengths = [end_m - float(along[round(first)]) for (first, _), end_m in zip(rounds, ends_m, strict=True)]
    behind_m = float(along[-1]) - ends_m[-1]
    if wanted is None and max(*lengths, behind_m) > ALIKE * min(lengths):
        _check_onward(xy)  # a line that runs back and on again passes each place twice
        loops = ", ".join(f"{length_m:.0f}" for length_m in lengths)
        found = f"a line that goes round loops of {loops} m and then on for {behind_m:.0f} m"
        raise MonoError(found, "one course", "name the loop with lap=N, N from 1, or take the whole line with open")
    first, last = round(rounds[(wanted or 1) - 1][0]), rounds[(wanted or 1) - 1][1]
    start, lap = smoothly_cut(table, first, last, reach_m, bool(closed))
    said = stood
    if len(rounds) > 1:
        said.append(f"lap {wanted or 1} of {len(rounds)} is taken (another: FILE:lap=N)")
    elif behind_m > LOOK_M:
        said.append(f"the last {behind_m:.1f} m, which run past its start, are left out")
    if along[first] <= LOOK_M < along[start]:
        said.append(f"it begins {along[start]:.0f} m behind its first point, where its ends meet better")
    elif wanted in (None, 1) and along[start] > LOOK_M:
        said.append(f"the first {along[start]:.0f} m lead in and are left out")
    return Lap(lap.table, True, said + lap.said)


def _moving(table: FloatArray) -> tuple[FloatArray, list[str]]:
    """The line without points where it only trembles on the spot, and a word on them."""
    kept = np.ones(len(table), bool)
    x, y = table[:, 0].tolist(), table[:, 1].tolist()
    i = 0
    while i < len(x) - 1:
        j, way_m = i, 0.0
        while j + 1 < len(x) and hypot(x[j + 1] - x[i], y[j + 1] - y[i]) < LOOK_M:
            way_m += hypot(x[j + 1] - x[j], y[j + 1] - y[j])
            j += 1
        if way_m > TREMBLING * LOOK_M:
            kept[i + 1 : j + 1] = False
        i = j + 1
    dropped = int((~kept).sum())
    return table[kept], [f"{dropped} points where it stands still are left out"] if dropped else []


def _onward(table: FloatArray) -> tuple[FloatArray, list[str]]:
    """The line without points that step back by less than :data:`LOOK_M`, as noise makes them; and a word on them."""
    points = table[:, :2].tolist()
    kept, behind = [0, 1], 0  # the latter: the place in kept from which the heading is taken, half a step back
    waiting = False  # for a point that lies ahead again
    for k in range(2, len(points)):
        (bx, by), (x, y) = points[kept[-1]], points[k]
        while behind < len(kept) - 2 and dist(points[kept[behind + 1]], (bx, by)) >= 0.5 * LOOK_M:
            behind += 1
        ax, ay = points[kept[behind]]
        step_m = hypot(x - bx, y - by)
        ahead = ((bx - ax) * (x - bx) + (by - ay) * (y - by)) / max(hypot(bx - ax, by - ay) * step_m, 1e-9)
        waiting = step_m < LOOK_M and ahead < (ONWARD if waiting else ASKEW)
        if not waiting:
            kept.append(k)
    dropped = len(points) - len(kept)
    return table[kept], [f"{dropped} points that step back are left out"] if dropped else []


def _places_back(xy: FloatArray, cosine: float = BACK) -> FloatArray:
    """Places (M, 2) where a line runs back over itself: no kart turns within a metre."""
    corners = xy[apart(xy, LOOK_M)]
    step = np.diff(corners, axis=0)
    step /= np.maximum(np.linalg.norm(step, axis=1), 1e-9)[:, None]
    return np.asarray(corners[1:-1][(step[:-1] * step[1:]).sum(axis=1) < cosine])


def _check_onward(xy: FloatArray) -> None:
    back = _places_back(xy)
    if len(askew := _places_back(xy, ASKEW)) > MOST_ASKEW:
        back = askew
    if len(back):
        found = f"a line that turns back on itself at ({back[0, 0]:.1f}, {back[0, 1]:.1f})"
        found += f" and at {len(back) - 1} more places" if len(back) > 1 else ""
        do = "remove the rows that run back, put the rows in order, or smooth a noisy line"
        raise MonoError(found, "points in the order in which they are driven", do)


def _rounds(xy: FloatArray, reach_m: float) -> list[tuple[float, float]]:
    """First and last place of each round, as indices into the points with fractions."""
    line, index = _evenly(xy)
    step = np.gradient(line, axis=0)
    heading = step / np.maximum(np.linalg.norm(step, axis=1), 1e-9)[:, None]
    found: list[tuple[float, float]] = []
    # A line of few points turns in steps, and by as much the headings of two places may differ for nothing.
    ways = np.diff(xy, axis=0)
    turn = np.angle((ways[1:] @ (1.0, 1j)) / (ways[:-1] @ (1.0, 1j)))
    slack_m = START_SLACK_M + 0.5 * ANGLE_M * float(np.median(np.abs(turn)))
    start = 0
    while (pair := _return(line, heading, start, reach_m, slack_m)) is not None:
        found.append((float(index[pair[0]]), float(index[pair[1]])))
        start = pair[1]
    return found


def _evenly(xy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points (M, 2) every :data:`LOOK_M` along the line, and their places among its points."""
    kept = apart(xy, 0.5 * LOOK_M)
    corners = xy[kept]
    along = distance_along(corners)
    at = np.linspace(0.0, along[-1], max(2, round(along[-1] / LOOK_M)) + 1)
    line = np.stack([np.interp(at, along, corners[:, k]) for k in (0, 1)], axis=1)
    return line, np.interp(at, along, kept)


def _return(
    line: FloatArray, heading: FloatArray, start: int, reach_m: float, slack_m: float
) -> tuple[int, int] | None:
    """Where the line from ``start`` on first comes back to itself: two places, the nearest of that meeting."""
    shortest, most = round(SHORTEST_M / LOOK_M), round(ALONG_M / LOOK_M)
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    places = np.floor(line / reach_m).astype(np.int64).tolist()
    meetings: list[tuple[float, int, int]] = []  # how well they join, place before, place now
    for j in range(start + shortest, len(line)):
        x, y = places[j - shortest]
        cells[(x, y)].append(j - shortest)
        x, y = places[j]
        near = [i for dx, dy in product((-1, 0, 1), repeat=2) for i in cells.get((x + dx, y + dy), ())]
        near = [i for i in near if heading[i] @ heading[j] >= SAME_HEADING]
        near = [i for i in near if np.hypot(*(line[i] - line[j])) <= reach_m]
        if near:
            meetings.append(min((_mismatch_m(line, heading, i, j), i, j) for i in near))
        elif meetings:
            break
        if meetings and j - meetings[0][2] >= most:
            break
    if not meetings:
        return None
    best = min(meetings)
    at_start = min((_mismatch_m(line, heading, start, j), start, j) for _, _, j in meetings)
    return (at_start if at_start[0] <= best[0] + slack_m else best)[1:]


def _mismatch_m(line: FloatArray, heading: FloatArray, i: int, j: int) -> float:
    """How far apart two places are, and with what angle: a line that goes on from the other bends by both."""
    angle = float(np.arccos(np.clip(heading[i] @ heading[j], -1.0, 1.0)))
    return float(np.hypot(*(line[i] - line[j]))) + ANGLE_M * angle
