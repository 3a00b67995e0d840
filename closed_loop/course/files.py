"""Courses from the racelines and maps that teams of the Automotive AI Challenge and racing databases have.

A CSV is told by its columns: a line (raceline of 8 columns, MPC, centreline with widths, TUM's racetracks), or lane
boundaries; what begins with "<" is a Lanelet2 map. What of a file was taken, left out or assumed is said in one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import dist
from pathlib import Path

import numpy as np

from closed_loop.course.course import Course
from closed_loop.course.crossings import nearest_stretches, self_crossing
from closed_loop.course.lanes import Lane, centreline, joined, oriented
from closed_loop.course.lap import SHORTEST_M, lap_of
from closed_loop.course.loops import main_loop, named_loop
from closed_loop.course.osm import Bounds, listed, read_lanelets
from closed_loop.course.table import numbers, read_table, runs_against
from collector.common.errors import MonoError
from collector.common.text_files import MIB, read_text
from collector.geometry.poses import FloatArray, distance_along
from collector.geometry.splines import resample

STEP_M = 0.5
DEFAULT_HALF_WIDTH_M = 3.0
MOST_BYTES, MOST_LANES, MOST_WAYS = 32 * MIB, 5_000, 100
LONGEST_M, MOST_SPACING_M, WIDEST_M = 25_000.0, 50.0, 100.0
TIGHTEST_M = 1.4  # a wheelbase of 1.09 m at the steering limit of 0.64 rad
REACH_M = 10.0  # stretches nearer than this may be the same road, however wide the file says it is
JUMP_M = 10.0  # a step so long, and so many times the median, must lead straight on
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
# The columns of a line's points, of its widths (left, right), and those that say nothing a course needs.
POINTS = (("x_m", "y_m"), ("x", "y"), ("x_ref_m", "y_ref_m"))
WIDTHS = (("width_left_m", "width_right_m"), ("w_tr_left_m", "w_tr_right_m"))
UNUSED = {
    *("z", "z_m", "x_quat", "y_quat", "z_quat", "w_quat", "qx", "qy", "qz", "qw", "yaw", "yaw_rad", "psi_rad"),
    *("s", "s_m", "speed", "v", "vx_mps", "ax_mps2", "kappa", "kappa_1pm", "kappa_radpm"),
}
# A column that may say how wide the road is must not be passed over.
_MAY_BE_WIDTH = re.compile("wid|w_tr|left|right|bound|border|edge|half|[幅左右端縁]|境界")
LANES = {"lanelet_id", "boundary_type", "local_x", "local_y"}
KINDS = (
    "a raceline CSV (x,y,z,x_quat,y_quat,z_quat,w_quat,speed), an MPC CSV (s_m,x_m,y_m,psi_rad,kappa_radpm,...), "
    "a centreline CSV (s_m,x_m,y_m,...,width_left_m,width_right_m), a racetrack CSV (x_m,y_m,w_tr_right_m,"
    "w_tr_left_m), a lane-boundary CSV (lanelet_id,way_id,boundary_type,...,local_x,local_y,...) or a Lanelet2 .osm "
    "with local_x/local_y tags"
)


@dataclass(frozen=True)
class Reading:
    """What a person says about a course file, behind its name (``FILE:closed:half_width=1.5``)."""

    half_width_m: float | None = None
    closed: bool | None = None
    lap: int | None = None
    lanes: tuple[str, ...] = ()
    unit_m: float = 1.0
    backward: bool = False


def read_course(path: Path, reading: Reading | None = None) -> Course:
    """A course from a file, told by its content and named after it; how it was read is said on stderr, once.

    It lies in the file's own map coordinates. A line without widths (racelines, MPC lines) gets ``half_width_m``, or
    :data:`DEFAULT_HALF_WIDTH_M`.

    Raises:
        MonoError: the file cannot be read, is of no known kind, or its content makes no road; the message names
            the line or the element.
    """
    reading = reading or Reading()
    text = read_text(path, "course file", MOST_BYTES)
    kind = ".osm" if text[:1000].lstrip().startswith("<") else path.suffix.lower()
    course, said = READERS.get(kind, _from_csv)(path, text, reading)
    met = self_crossing(course.xy, course.closed, 4.0 * STEP_M)
    if met is not None:
        said.append(f"it crosses itself at ({met[0]:.1f}, {met[1]:.1f})")
    radius_m = 1.0 / max(float(np.abs(course.curvature_1pm).max()), 1e-9)
    if radius_m < TIGHTEST_M:
        x, y = course.xy[int(np.abs(course.curvature_1pm).argmax())]
        said.append(f"its bend at ({x:.1f}, {y:.1f}) has a radius of {radius_m:.1f} m, which no kart can follow")
    if not course.closed:
        said.append("a kart drives it once and stops")
    shape = "a closed lap" if course.closed else "an open line"
    _say("; ".join([f"course {path}: {shape} of {course.length_m:.1f} m", *said]))
    return course


@lru_cache(maxsize=256)
def _say(line: str) -> None:
    """Once for each line: several parts of a run read the same file."""
    print(line, file=sys.stderr)


def _from_csv(path: Path, text: str, reading: Reading) -> tuple[Course, list[str]]:
    header, rows = read_table(path, text)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise MonoError(f"course file {path} has the column {twice[0]!r} twice", "each column once", "remove one")
    if set(header) >= LANES:
        if reading != Reading(lanes=reading.lanes):
            raise _idle(path, "lanes=ID+ID")
        bounds, said = _bounds_of_csv(path, header, rows)
        return _from_lanes(path, bounds, reading, said)
    if reading.lanes:
        raise _idle(path, "closed, open, backward, lap=N, half_width=METRES and unit=mm")
    return _from_line(path, header, rows, reading)


def _from_osm(path: Path, text: str, reading: Reading) -> tuple[Course, list[str]]:
    if reading != Reading(lanes=reading.lanes):
        raise _idle(path, "lanes=ID+ID")
    bounds, said = read_lanelets(path, text, bool(reading.lanes))
    return _from_lanes(path, bounds, reading, said)


def _idle(path: Path, known: str) -> MonoError:
    return MonoError(f"an option behind {path} that means nothing for such a file", known, "leave it out")


# Who reads a file of a suffix: from its path, its text, and what a person said about it.
READERS: Mapping[str, Callable[[Path, str, Reading], tuple[Course, list[str]]]] = {".csv": _from_csv, ".osm": _from_osm}


def _from_line(path: Path, header: list[str], rows: list[list[str]], reading: Reading) -> tuple[Course, list[str]]:
    """A course along the points of a CSV."""
    used, said = _columns(path, header)
    table = numbers(path, header, rows, used) * reading.unit_m
    _check_line(path, table)
    if reading.backward:
        table = table[::-1] if len(used) == 2 else table[::-1, [0, 1, 3, 2]]
        said.append("driven from its last row to its first, as asked")
    elif column := runs_against(header, rows, table[:, :2]):
        said.append(f"its rows run against its own column {column} (the other way: FILE:backward)")
    table = _distinct(table)
    if len(table) < 4:
        raise MonoError(f"course file {path} with {len(table)} different points", "at least 4", "use a longer line")
    half_m = DEFAULT_HALF_WIDTH_M if reading.half_width_m is None else reading.half_width_m
    if len(used) == 4 and reading.half_width_m is not None:
        said.append(f"the widths of the file are replaced by {half_m:g} m to either edge")
        table = table[:, :2]
    elif len(used) == 4:
        half_m = float(table[:, 2:].mean())
    elif reading.half_width_m is None:
        said.append(f"it has no widths: {half_m:g} m to either edge (another: FILE:half_width=METRES)")
    try:
        lap = lap_of(table, min(half_m, REACH_M), reading.closed, reading.lap)
    except MonoError as error:
        do = re.sub("(lap=N|(?<=with )(?:open|closed))", r"FILE:\1", error.do)
        raise MonoError(f"course file {path}: {error.found}", error.expected, do) from error
    xy = resample(lap.table[:, :2], STEP_M, lap.closed)
    edges = np.full((2, len(xy)), half_m)
    if lap.table.shape[1] == 4:
        around = np.vstack([lap.table, lap.table[:1]]) if lap.closed else lap.table
        along = distance_along(around[:, :2])
        # Same parameter on both sides: the share of the way.
        share = np.arange(len(xy)) / (len(xy) if lap.closed else len(xy) - 1)
        edges = np.stack([np.interp(share, along / along[-1], around[:, k]) for k in (2, 3)])
    course = Course(path.stem, xy, lap.closed, *edges)
    if len(used) == 2 and reading.half_width_m is None and (near := nearest_stretches(course, 2.0 * half_m)):
        apart_m, (x, y) = near
        said.append(f"these edges overlap: two stretches are {apart_m:.1f} m apart at ({x:.1f}, {y:.1f})")
    return course, lap.said + said


def _columns(path: Path, header: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The columns of a line's points and, behind them, widths where it has any; and which are not used."""
    points = [pair for pair in POINTS if set(pair) <= set(header)]
    widths = [pair for pair in WIDTHS if set(pair) <= set(header)]
    if not points:
        do = "give one of these files" if len(header) > 1 else "separate the columns by commas, semicolons or tabs"
        raise MonoError(f"course file {path} begins with {','.join(header)[:80]!r}", KINDS, do)
    if len(points) > 1 or len(widths) > 1:
        both = (points if len(points) > 1 else widths)[:2]
        found = f"course file {path} has {' and '.join(','.join(pair) for pair in both)}"
        raise MonoError(found, "one pair of them", "remove the columns of the other")
    used = points[0] + (widths[0] if widths else ())
    others = [name for name in header if name and name not in used and name not in UNUSED]
    if odd := [name for name in others if _MAY_BE_WIDTH.search(name)]:
        pairs = " or ".join(",".join(pair) for pair in WIDTHS)
        found = f"course file {path} has the column {odd[0]!r}, which may be a width"
        raise MonoError(found, f"widths as {pairs} (metres from the line to the edge)", "rename or remove the column")
    return used, [f"columns not used: {listed(others)}"] if others else []


def _distinct(table: FloatArray) -> FloatArray:
    """The points that lie a millimetre from the one before, of those that are kept."""
    kept, last = [0], table[0, :2].tolist() if len(table) else []
    for row, place in enumerate(table[:, :2].tolist()):
        if dist(place, last) > 1e-3:
            kept.append(row)
            last = place
    return table[kept[: len(table)]]


def _check_line(path: Path, table: FloatArray) -> None:
    """Refuse lines that are no road in metres."""
    if len(table) < 4:
        return
    steps = np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1)
    _check_length(path, float(steps.sum()))
    do = "if they are millimetres or centimetres, write FILE:unit=mm or FILE:unit=cm"
    spacing = float(np.median(steps))
    if spacing > MOST_SPACING_M:
        found = f"course file {path} has points {spacing:.4g} m apart"
        raise MonoError(found, f"metres, and points at most {MOST_SPACING_M:g} m apart", do)
    for row in np.flatnonzero(steps > JUMP_M * max(spacing, 1.0)).tolist():
        # A long step straight on joins the ends of a straight; one that turns is a point out of place.
        ahead = np.diff(table[max(row - 1, 0) : row + 3, :2], axis=0)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1), 1e-9)[:, None]
        if (ahead @ ahead[min(row, 1)] < 0.5).any():
            found = f"course file {path}: a step of {steps[row]:.4g} m between data rows {row + 1} and {row + 2}"
            raise MonoError(found, f"points about {spacing:.2g} m apart, as the others", "correct or remove the row")
    if table.shape[1] == 4 and table[:, 2:].max() > WIDEST_M:
        found = f"course file {path} has a road that reaches {table[:, 2:].max():.4g} m to one side"
        raise MonoError(found, f"at most {WIDEST_M:g} m", do)


def _check_length(path: Path, length_m: float) -> None:
    if length_m < SHORTEST_M:
        found = f"course file {path} describes a line of {length_m:.3g} m"
        expected = f"map coordinates in metres, {SHORTEST_M:g} m or more"
        raise MonoError(found, expected, "latitudes and longitudes must be projected first")
    if length_m > LONGEST_M:
        found = f"course file {path} describes a line of {length_m:.4g} m"
        expected = f"map coordinates in metres, at most {LONGEST_M:g} m"
        raise MonoError(found, expected, "if they are millimetres, write FILE:unit=mm behind a CSV")


def _bounds_of_csv(path: Path, header: list[str], rows: list[list[str]]) -> tuple[Bounds, list[str]]:
    xy = numbers(path, header, rows, ("local_x", "local_y"))
    known = "sequence_order" in header
    order = numbers(path, header, rows, ("sequence_order",))[:, 0] if known else np.zeros(len(rows))
    lane_column, side_column = header.index("lanelet_id"), header.index("boundary_type")
    points: dict[str, dict[str, list[FloatArray]]] = {row[lane_column].strip(): {} for row in rows}
    for index in np.argsort(order, kind="stable").tolist():
        side = rows[index][side_column].strip()
        if side not in ("left", "right"):
            raise MonoError(f"course file {path}: boundary_type {side!r}", "left or right", "correct the column")
        points[rows[index][lane_column].strip()].setdefault(side, []).append(xy[index])
    said = [] if known else ["without sequence_order, points are taken in the order of their rows"]
    return {name: {side: [np.array(line)] for side, line in sides.items()} for name, sides in points.items()}, said


def _from_lanes(path: Path, bounds: Bounds, reading: Reading, said: list[str]) -> tuple[Course, list[str]]:
    lanes: list[Lane] = []
    without: list[str] = []
    for name, sides in bounds.items():
        lines = [_bound(path, name, side, sides.get(side, [])) for side in ("left", "right")]
        if lines[0] is None or lines[1] is None or np.array_equal(lines[0], lines[1]):
            without.append(name)
        else:
            lanes.append(oriented(name, lines[0], lines[1]))
    if without:
        lost = (
            "lanes without a left and another right bound, each in one piece, are left out, and any loop through them"
        )
        said.append(f"{lost} ({listed(without)})")
    if not lanes:
        found = f"course file {path} without lanes"
        raise MonoError(found, "lanelets of subtype road with a left and a right bound", "check the map")
    if len(lanes) > MOST_LANES and not reading.lanes:
        found = f"course file {path} with {len(lanes):,} lanes"
        raise MonoError(found, f"at most {MOST_LANES:,}", "name lanes of the loop with FILE:lanes=ID+ID")
    try:
        loop = named_loop(lanes, reading.lanes) if reading.lanes else main_loop(lanes)
        _check_length(path, loop.length_m)
        xy, left_m, right_m = centreline(loop.lanes, loop.closed)
    except MonoError as error:
        if str(path) in error.found:
            raise
        raise MonoError(
            f"course file {path}: {error.found}", error.expected, f"{error.do} (FILE:lanes=ID+ID)"
        ) from error
    names = f"lanes {listed([lane.name for lane in loop.lanes], 100)}"
    if len(loop.said) and not reading.lanes:
        names += " (others: FILE:lanes=ID+ID, some lanes of the loop in driving order)"
    return Course(path.stem, xy, loop.closed, left_m, right_m), [names, *loop.said, *said]


def _bound(path: Path, lane: str, side: str, ways: list[FloatArray]) -> FloatArray | None:
    """One bound of a lane, None where its ways make no line in one piece."""
    if len(ways) > MOST_WAYS:
        found = f"course file {path}, lane {lane}: {len(ways):,} ways for its {side} bound"
        raise MonoError(found, f"at most {MOST_WAYS}", "export the map again")
    lines = joined(ways)
    if len(lines) != 1:
        return None
    length_m = float(distance_along(lines[0])[-1])
    if length_m > LONGEST_M:
        _check_length(path, length_m)
    return lines[0] if length_m > 1e-3 else None
