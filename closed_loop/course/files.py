"""Courses from files: the racelines and maps that teams of the Automotive AI Challenge have.

Four kinds, told apart by their content: a line (raceline CSV of 8 columns, MPC CSV, centreline CSV with widths),
lane boundaries as CSV, and Lanelet2 maps. Of a map the main loop is found from which lane follows which.
"""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from closed_loop.course.course import Course
from closed_loop.course.lanes import Lane, centreline, longest_way, main_loop, oriented
from collector.common.errors import MonoError
from collector.geometry.poses import distance_along
from collector.geometry.splines import resample

FloatArray = NDArray[np.float64]

STEP_M = 0.5
DEFAULT_HALF_WIDTH_M = 3.0
SHORTEST_M = 20.0
KINDS = (
    "a raceline CSV (x,y,z,x_quat,y_quat,z_quat,w_quat,speed), an MPC CSV (s_m,x_m,y_m,psi_rad,kappa_radpm,...), "
    "a centreline CSV (s_m,x_m,y_m,...,width_left_m,width_right_m), a lane-boundary CSV "
    "(lanelet_id,way_id,boundary_type,...,local_x,local_y,...) or a Lanelet2 .osm with local_x/local_y tags"
)


def read_course(path: Path, half_width_m: float = DEFAULT_HALF_WIDTH_M) -> Course:
    """A course from a file.

    Args:
        path: see the module; the kind is read from the content.
        half_width_m: distance to either edge where the file has no widths (racelines, MPC lines).

    Returns:
        a course named after the file, in the file's own map coordinates; closed when its ends meet.

    Raises:
        MonoError: the file cannot be read, is of no known kind, or its content makes no road; the message names
            the line or the element.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MonoError(f"course file {path}: {error}", KINDS, "check the path and the format") from error
    if path.suffix.lower() == ".osm" or text.lstrip().startswith("<"):
        return _from_lanes(path, _lanes_of_osm(path, text))
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    if {"lanelet_id", "boundary_type", "local_x", "local_y"} <= set(header):
        return _from_lanes(path, _lanes_of_csv(path, header, rows[1:]))
    if {"x_m", "y_m"} <= set(header):
        names = ["x_m", "y_m"]
    elif {"x", "y", "speed"} <= set(header):
        names = ["x", "y"]
    else:
        raise MonoError(f"course file {path} begins with {','.join(header)[:80]!r}", KINDS, "give one of these files")
    widths = ["width_left_m", "width_right_m"]
    if set(widths) <= set(header):
        names += widths
    return _from_line(path, _numbers(path, header, rows[1:], names), half_width_m)


def _numbers(path: Path, header: list[str], rows: list[list[str]], names: list[str]) -> FloatArray:
    """The named columns (N, len(names)), or an error that names the row."""
    columns = [header.index(name) for name in names]
    table = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        try:
            table[index] = [float(row[column]) for column in columns]
        except (ValueError, IndexError) as error:
            raise MonoError(
                f"course file {path}, data row {index + 1}: {','.join(row)[:80]!r}",
                f"numbers in the columns {', '.join(names)}",
                "correct or remove the row",
            ) from error
        if not np.isfinite(table[index]).all():
            raise MonoError(
                f"course file {path}, data row {index + 1}: not a finite number", "metres", "correct or remove the row"
            )
    return table


def _from_line(path: Path, table: FloatArray, half_width_m: float) -> Course:
    if len(table) >= 4:
        _check_length(path, float(distance_along(table)[-1]))
    moved = np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1) > 1e-3
    table = table[np.append(True, moved)[: len(table)]]
    if len(table) < 4:
        raise MonoError(f"course file {path} with {len(table)} different points", "at least 4", "use a longer line")
    spacing = np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1)
    gap = float(np.linalg.norm(table[0, :2] - table[-1, :2]))
    closed = gap < 2.5 * float(np.median(spacing))
    if closed and gap < 0.35 * float(np.median(spacing)):
        table = table[:-1]  # the file repeats its start
    xy = resample(table[:, :2], STEP_M, closed)
    if table.shape[1] < 4:
        return Course(path.stem, xy, closed, np.full(len(xy), half_width_m), np.full(len(xy), half_width_m))
    # Same parameter on both sides: the share of the way.
    given = distance_along(np.vstack([table[:, :2], table[:1, :2]]) if closed else table[:, :2])
    share = np.arange(len(xy)) / (len(xy) if closed else len(xy) - 1)
    wide = np.vstack([table, table[:1]]) if closed else table
    left, right = (np.interp(share, given / given[-1], wide[:, k]) for k in (2, 3))
    return Course(path.stem, xy, closed, left, right)


def _check_length(path: Path, length_m: float) -> None:
    if length_m < SHORTEST_M:
        raise MonoError(
            f"course file {path} describes a line of {length_m:.3g} m",
            f"map coordinates in metres, {SHORTEST_M:g} m or more",
            "latitudes and longitudes must be projected first",
        )


def _lanes_of_csv(path: Path, header: list[str], rows: list[list[str]]) -> list[Lane]:
    xy = _numbers(path, header, rows, ["local_x", "local_y"])
    lane_column, side_column = header.index("lanelet_id"), header.index("boundary_type")
    order = _numbers(path, header, rows, ["sequence_order"])[:, 0] if "sequence_order" in header else None
    bounds: dict[str, dict[str, list[tuple[float, FloatArray]]]] = {}
    for index, (row, point) in enumerate(zip(rows, xy)):
        sides = bounds.setdefault(row[lane_column].strip(), {"left": [], "right": []})
        side = row[side_column].strip()
        if side not in sides:
            raise MonoError(f"course file {path}: boundary_type {side!r}", "left or right", "correct the column")
        sides[side].append((float(index if order is None else order[index]), point))
    lanes = []
    for name, sides in bounds.items():
        left, right = (
            np.array([point for _, point in sorted(sides[side], key=lambda item: item[0])])
            for side in ("left", "right")
        )
        if len(left) >= 2 and len(right) >= 2:
            lanes.append(oriented(name, left, right))
    return lanes


def _lanes_of_osm(path: Path, text: str) -> list[Lane]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise MonoError(f"course file {path}: {error}", "a Lanelet2 map (OSM XML)", "export the map again") from error
    places: dict[str, tuple[float, float]] = {}
    for node in root.iter("node"):
        tags = _tags(node)
        try:
            places[str(node.get("id"))] = (float(tags["local_x"]), float(tags["local_y"]))
        except (KeyError, ValueError):
            continue
    if not places:
        raise MonoError(
            f"course file {path} without local_x/local_y tags on its nodes",
            "metres in the map frame",
            "export the map with local coordinates (MGRS), as Autoware's map tools do",
        )
    ways = {
        str(way.get("id")): [places[str(nd.get("ref"))] for nd in way.findall("nd") if str(nd.get("ref")) in places]
        for way in root.iter("way")
    }
    lanes = []
    for relation in root.iter("relation"):
        tags = _tags(relation)
        if tags.get("type") != "lanelet" or tags.get("subtype", "road") != "road":
            continue
        sides: dict[str, list[FloatArray]] = {"left": [], "right": []}
        for member in relation.findall("member"):
            role, points = member.get("role"), ways.get(str(member.get("ref")), [])
            if role in sides and len(points) >= 2:
                sides[role].append(np.array(points))
        left, right = longest_way(sides["left"]), longest_way(sides["right"])
        if left is not None and right is not None:
            lanes.append(oriented(str(relation.get("id")), left, right))
    return lanes


def _tags(element: ElementTree.Element) -> dict[str, str]:
    return {str(tag.get("k")): str(tag.get("v")) for tag in element.findall("tag")}


def _from_lanes(path: Path, lanes: list[Lane]) -> Course:
    if not lanes:
        raise MonoError(
            f"course file {path} without lanes",
            "lanelets of subtype road with a left and a right bound",
            "check the map",
        )
    loop, closed = main_loop(lanes)
    _check_length(path, sum(lane.length_m for lane in loop))
    xy, left, right = centreline(loop, closed)
    return Course(path.stem, xy, closed, left, right)
