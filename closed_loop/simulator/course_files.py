"""Courses from files: the racelines and maps that teams of the Automotive AI Challenge have.

Four kinds, told apart by their content: a line (raceline CSV of 8 columns, MPC CSV, centreline CSV with widths),
lane boundaries as CSV, and Lanelet2 maps. Of a map the main loop is found from which lane follows which.
"""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from closed_loop.simulator.course import Course, resample
from collector.errors import MonoError
from collector.poses import distance_along

FloatArray = NDArray[np.float64]

STEP_M = 0.5
EDGE_STEP_M = 0.25
SMOOTH_M = 1.2
DEFAULT_HALF_WIDTH_M = 3.0
SHORTEST_M = 20.0
SAME_PLACE_M = 0.05
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
                f"numbers in the columns {', '.join(names)}", "correct or remove the row",
            ) from error
        if not np.isfinite(table[index]).all():
            raise MonoError(f"course file {path}, data row {index + 1}: not a finite number", "metres",
                            "correct or remove the row")
    return table


def _from_line(path: Path, table: FloatArray, half_width_m: float) -> Course:
    keep = np.append(True, np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1) > 1e-3) if len(table) else []
    table = table[np.asarray(keep, bool)]
    if len(table) < 4:
        raise MonoError(f"course file {path} with {len(table)} different points", "at least 4", "use a longer line")
    spacing = np.linalg.norm(np.diff(table[:, :2], axis=0), axis=1)
    _check_length(path, float(spacing.sum()))
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
            f"course file {path} describes a line of {length_m:.3g} m", f"map coordinates in metres, {SHORTEST_M:g} m or more",
            "latitudes and longitudes must be projected first",
        )


# ---------------------------------------------------------------- lanes


@dataclass(frozen=True, eq=False)
class _Lane:
    """One lanelet: its bounds (N, 2) in driving direction."""

    name: str
    left: FloatArray
    right: FloatArray

    @property
    def length_m(self) -> float:
        return 0.5 * float(distance_along(self.left)[-1] + distance_along(self.right)[-1])

    def leads_to(self, other: _Lane) -> bool:
        """Both bounds continue in the other lane's."""
        return bool(
            np.linalg.norm(self.left[-1] - other.left[0]) < SAME_PLACE_M
            and np.linalg.norm(self.right[-1] - other.right[0]) < SAME_PLACE_M
        )


def _oriented(name: str, left: FloatArray, right: FloatArray) -> _Lane:
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
    return _Lane(name, left, right)


def _lanes_of_csv(path: Path, header: list[str], rows: list[list[str]]) -> list[_Lane]:
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
            np.array([point for _, point in sorted(sides[side], key=lambda item: item[0])]) for side in ("left", "right")
        )
        if len(left) >= 2 and len(right) >= 2:
            lanes.append(_oriented(name, left, right))
    return lanes


def _longest_way(ways: list[FloatArray]) -> FloatArray | None:
    """One line of the ways of a bound: ways that continue one another are joined, the longest line is taken.

    A bound may be cut into several ways, listed in any order and direction.
    """
    lines = [way for way in ways if len(way) >= 2]
    joined = True
    while joined:
        joined = False
        for i, one in enumerate(lines):
            for j, other in enumerate(lines):
                if i == j:
                    continue
                for candidate in (other, other[::-1]):
                    if np.linalg.norm(one[-1] - candidate[0]) < SAME_PLACE_M:
                        rest = [line for k, line in enumerate(lines) if k not in (i, j)]
                        lines, joined = [*rest, np.vstack([one, candidate[1:]])], True
                        break
                if joined:
                    break
            if joined:
                break
    return max(lines, key=lambda line: float(distance_along(line)[-1]), default=None)


def _lanes_of_osm(path: Path, text: str) -> list[_Lane]:
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
            f"course file {path} without local_x/local_y tags on its nodes", "metres in the map frame",
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
        left, right = _longest_way(sides["left"]), _longest_way(sides["right"])
        if left is not None and right is not None:
            lanes.append(_oriented(str(relation.get("id")), left, right))
    return lanes


def _tags(element: ElementTree.Element) -> dict[str, str]:
    return {str(tag.get("k")): str(tag.get("v")) for tag in element.findall("tag")}


def main_loop(lanes: list[_Lane]) -> tuple[list[_Lane], bool]:
    """The longest closed chain of lanes, or the longest open one where nothing closes; and which it is.

    A walk through all simple chains; maps of circuits have some tens of lanes and few branches, and the walk is
    bounded for those that have more.
    """
    follows = [[j for j, other in enumerate(lanes) if lane.leads_to(other)] for lane in lanes]
    best: dict[bool, tuple[float, list[int]]] = {True: (0.0, []), False: (0.0, [])}
    budget = 200_000
    for first in range(len(lanes)):
        stack = [([first], lanes[first].length_m)]
        while stack and budget > 0:
            budget -= 1
            chain, length = stack.pop()
            if length > best[False][0]:
                best[False] = (length, chain)
            for after in follows[chain[-1]]:
                if after == first:
                    if length > best[True][0] + 1e-6:
                        best[True] = (length, chain)
                elif after not in chain:
                    stack.append(([*chain, after], length + lanes[after].length_m))
    closed = bool(best[True][1])
    return [lanes[i] for i in best[closed][1]], closed


def _from_lanes(path: Path, lanes: list[_Lane]) -> Course:
    if not lanes:
        raise MonoError(f"course file {path} without lanes", "lanelets of subtype road with a left and a right bound",
                        "check the map")
    loop, closed = main_loop(lanes)
    _check_length(path, sum(lane.length_m for lane in loop))
    xy, left, right = _centreline(loop, closed)
    return Course(path.stem, xy, closed, left, right)


def _centreline(loop: list[_Lane], closed: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The line that is everywhere as far from the left bound as from the right one, and those distances.

    Starts from the middles of equal shares of each lane's bounds and is pulled, round after round, to the middle
    between the nearest points of both bounds.
    """
    bounds: list[list[FloatArray]] = [[], []]
    middle, at_lane = [], [[], []]  # type: ignore[var-annotated]
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
        feet = [_nearest(line, edge, station, done_m, closed) for edge, station in zip(edges, stations)]
        line = resample(_smooth(0.5 * (feet[0] + feet[1]), 0.5, closed), STEP_M, closed)
    # A corner of an edge makes the exact middle line kink; a road is driven on a smooth one.
    line = resample(_smooth(line, SMOOTH_M, closed), STEP_M, closed)
    left, right = (
        np.linalg.norm(line - _nearest(line, edge, station, done_m, closed), axis=1)
        for edge, station in zip(edges, stations)
    )
    return line, left, right


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
    """For each point of the line the nearest edge point that belongs to about the same place of the loop."""
    at = np.arange(len(line)) / len(line) * length_m
    apart = np.abs(at[:, None] - edge_at_m[None, :])
    if closed:
        apart = np.minimum(apart, length_m - apart)
    gap = np.hypot(line[:, None, 0] - edge[None, :, 0], line[:, None, 1] - edge[None, :, 1])
    gap[apart > reach_m] = np.inf
    nearest: FloatArray = edge[gap.argmin(axis=1)]
    return nearest
