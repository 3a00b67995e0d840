"""Courses by the names people write, and from the racelines and maps that teams of the Automotive AI Challenge have.

A new kind of course is a function that returns a :class:`Course` and a line in :data:`COURSES`; a new kind of file is a
reader and a line in :data:`READERS`. A CSV is told by its columns: a line (raceline of 8 columns, MPC, centreline with
widths) or lane boundaries. Of a map the main loop is found from which lane follows which.
"""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from closed_loop.course.city import city_course
from closed_loop.course.course import MIRROR, Course
from closed_loop.course.lanes import Lane, centreline, longest_way, main_loop, oriented
from closed_loop.course.random import random_course
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along
from collector.geometry.splines import resample

# The ways (N, 2) of each lane's bounds: lane -> "left" or "right" -> ways in any order and direction.
Bounds = Mapping[str, Mapping[str, list[FloatArray]]]

STEP_M = 0.5
DEFAULT_HALF_WIDTH_M = 3.0
SHORTEST_M = 20.0
# The columns that tell a line's file, by kind.
LINES = (("x_m", "y_m"), ("x", "y", "speed"))
WIDTHS = ("width_left_m", "width_right_m")
KINDS = (
    "a raceline CSV (x,y,z,x_quat,y_quat,z_quat,w_quat,speed), an MPC CSV (s_m,x_m,y_m,psi_rad,kappa_radpm,...), "
    "a centreline CSV (s_m,x_m,y_m,...,width_left_m,width_right_m), a lane-boundary CSV "
    "(lanelet_id,way_id,boundary_type,...,local_x,local_y,...) or a Lanelet2 .osm with local_x/local_y tags"
)


def read_course(path: Path, half_width_m: float = DEFAULT_HALF_WIDTH_M) -> Course:
    """A course from a file (one of another suffix is told by its content), named after it, closed when its ends meet.

    It lies in the file's own map coordinates. Where these have no widths (racelines, MPC lines), it takes
    ``half_width_m``.

    Raises:
        MonoError: the file cannot be read, is of no known kind, or its content makes no road; the message names
            the line or the element.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MonoError(f"course file {path}: {error}", KINDS, "check the path and the format") from error
    kind = ".osm" if text.lstrip().startswith("<") else path.suffix.lower()
    return READERS.get(kind, _from_csv)(path, text, half_width_m)


def _from_csv(path: Path, text: str, half_width_m: float) -> Course:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    if {"lanelet_id", "boundary_type", "local_x", "local_y"} <= set(header):
        return _from_lanes(path, _bounds_of_csv(path, header, rows[1:]))
    columns: tuple[str, ...] | None = next((line[:2] for line in LINES if set(line) <= set(header)), None)
    if columns is None:
        raise MonoError(f"course file {path} begins with {','.join(header)[:80]!r}", KINDS, "give one of these files")
    if set(WIDTHS) <= set(header):
        columns += WIDTHS
    return _from_line(path, _numbers(path, header, rows[1:], columns), half_width_m)


# Who reads a file of a suffix: from its path, its text, and half the width of the road where it has none.
READERS: Mapping[str, Callable[[Path, str, float], Course]] = {
    ".csv": _from_csv,
    ".osm": lambda path, text, _: _from_lanes(path, _bounds_of_osm(path, text)),
}


def _numbers(path: Path, header: list[str], rows: list[list[str]], names: tuple[str, ...]) -> FloatArray:
    """The named columns (N, len(names)), or an error that names the row."""
    columns = [header.index(name) for name in names]
    table = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        try:
            table[index] = [float(row[column]) for column in columns]
        except (ValueError, IndexError):
            table[index] = np.nan
        if not np.isfinite(table[index]).all():
            expected = f"numbers in the columns {', '.join(names)}"
            found = (
                f"course file {path}, data row {index + 1}: {','.join(row)[:80]!r} holds what is not a finite number"
            )
            raise MonoError(found, expected, "correct or remove the row")
    return table


def _from_line(path: Path, table: FloatArray, half_width_m: float) -> Course:
    """A course along points (N, 2), or along (N, 4) with the widths to the left and to the right."""
    if len(table) >= 4:
        _check_length(path, float(distance_along(table)[-1]))
    moved = np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1) > 1e-3
    table = table[np.append(True, moved)[: len(table)]]
    if len(table) < 4:
        raise MonoError(f"course file {path} with {len(table)} different points", "at least 4", "use a longer line")
    spacing = float(np.median(np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1)))
    gap = float(np.linalg.norm(table[0, :2] - table[-1, :2]))
    closed = gap < 2.5 * spacing
    if closed and gap < 0.35 * spacing:
        table = table[:-1]  # the file repeats its start
    xy = resample(table[:, :2], STEP_M, closed)
    widths = np.full((2, len(xy)), half_width_m)
    if table.shape[1] == 4:
        around = np.vstack([table, table[:1]]) if closed else table
        along = distance_along(around[:, :2])
        # Same parameter on both sides: the share of the way.
        share = np.arange(len(xy)) / (len(xy) if closed else len(xy) - 1)
        widths = np.stack([np.interp(share, along / along[-1], around[:, k]) for k in (2, 3)])
    return Course(path.stem, xy, closed, *widths)


def _check_length(path: Path, length_m: float) -> None:
    if length_m < SHORTEST_M:
        found = f"course file {path} describes a line of {length_m:.3g} m"
        expected = f"map coordinates in metres, {SHORTEST_M:g} m or more"
        raise MonoError(found, expected, "latitudes and longitudes must be projected first")


def _bounds_of_csv(path: Path, header: list[str], rows: list[list[str]]) -> Bounds:
    xy = _numbers(path, header, rows, ("local_x", "local_y"))
    known = "sequence_order" in header
    order = _numbers(path, header, rows, ("sequence_order",))[:, 0] if known else np.zeros(len(rows))
    lane_column, side_column = header.index("lanelet_id"), header.index("boundary_type")
    points: dict[str, dict[str, list[FloatArray]]] = {row[lane_column].strip(): {} for row in rows}
    for index in np.argsort(order, kind="stable").tolist():
        side = rows[index][side_column].strip()
        if side not in ("left", "right"):
            raise MonoError(f"course file {path}: boundary_type {side!r}", "left or right", "correct the column")
        points[rows[index][lane_column].strip()].setdefault(side, []).append(xy[index])
    return {name: {side: [np.array(line)] for side, line in sides.items()} for name, sides in points.items()}


def _bounds_of_osm(path: Path, text: str) -> Bounds:
    try:
        root = ET.fromstring(text)  # noqa: S314 - the user's own map; a file that expands without end harms only its user
    except ET.ParseError as error:
        raise MonoError(f"course file {path}: {error}", "a Lanelet2 map (OSM XML)", "export the map again") from error
    places: dict[str | None, tuple[float, float]] = {}
    for node in root.iter("node"):
        tags = _tags(node)
        try:
            places[node.get("id")] = (float(tags["local_x"]), float(tags["local_y"]))
        except (KeyError, ValueError):
            continue
    if not places:
        found, expected = f"course file {path} without local_x/local_y tags on its nodes", "metres in the map frame"
        raise MonoError(found, expected, "export the map with local coordinates (MGRS), as Autoware's map tools do")
    ways = {
        way.get("id"): np.array([places[nd.get("ref")] for nd in way.findall("nd") if nd.get("ref") in places])
        for way in root.iter("way")
    }
    bounds: dict[str, dict[str, list[FloatArray]]] = {}
    for relation in root.iter("relation"):
        tags = _tags(relation)
        if tags.get("type") == "lanelet" and tags.get("subtype", "road") == "road":
            sides = bounds.setdefault(str(relation.get("id")), defaultdict(list))
            for member in relation.findall("member"):
                if member.get("ref") in ways:
                    sides[str(member.get("role"))].append(ways[member.get("ref")])
    return bounds


def _tags(element: ET.Element) -> dict[str, str]:
    return {str(tag.get("k")): str(tag.get("v")) for tag in element.findall("tag")}


def _from_lanes(path: Path, bounds: Bounds) -> Course:
    lanes: list[Lane] = []
    for name, sides in bounds.items():
        left, right = longest_way(sides.get("left", [])), longest_way(sides.get("right", []))
        if left is not None and right is not None:
            lanes.append(oriented(name, left, right))
    if not lanes:
        found = f"course file {path} without lanes"
        raise MonoError(found, "lanelets of subtype road with a left and a right bound", "check the map")
    loop, closed = main_loop(lanes)
    _check_length(path, sum(lane.length_m for lane in loop))
    xy, left_m, right_m = centreline(loop, closed)
    return Course(path.stem, xy, closed, left_m, right_m)


# How people are told to write a name -> an expression for the whole of it, and who makes the course from the parts in
# brackets.
COURSES: Mapping[str, tuple[str, Callable[..., Course]]] = {
    "city": ("city", city_course),
    "random:SEED (a whole number)": (r"random:([0-9]+)", lambda seed: random_course(int(seed))),
}


def course_named(spec: str) -> Course:
    """The course a person asked for: a name of :data:`COURSES`, also with ``-mirror`` behind it, or a file.

    Files are a raceline CSV, MPC CSV, centreline CSV, lane-boundary CSV or Lanelet2 ``.osm``.

    Raises:
        MonoError: neither a known name nor an existing file, or a file that cannot be read as a course.
    """
    if known := _known(spec):
        make, parts = known
        course = make(*parts)
        return course.mirrored() if spec.endswith(MIRROR) else course
    check_named(spec)
    return read_course(Path(spec))


def check_named(spec: str) -> None:
    """Refuse what :func:`course_named` would, but for a file's content, without making the course.

    Raises:
        MonoError: neither a known name nor an existing file.
    """
    if not _known(spec) and not Path(spec).is_file():
        found = f"course {spec!r}"
        expected = f"{', '.join(COURSES)}, each also with {MIRROR}, or an existing {' or '.join(READERS)} file"
        raise MonoError(found, expected, "check the spelling or the path")


def _known(spec: str) -> tuple[Callable[..., Course], tuple[str, ...]] | None:
    for written, make in COURSES.values():
        if parts := re.fullmatch(written, spec.removesuffix(MIRROR)):
            return make, parts.groups()
    return None
