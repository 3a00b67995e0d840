"""The lanelets of a Lanelet2 map (OSM XML), read as a stream: only nodes, ways and lanelets are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray

# The ways (N, 2) of each lane's bounds: lane -> "left" or "right" -> ways in any order and direction.
Bounds = Mapping[str, Mapping[str, list[FloatArray]]]

MOST_DEPTH, MOST_POINTS = 30, 1_000_000  # the latter of all bounds; a city has some ten thousand
FARTHEST_M = 1e8  # no map projection has coordinates beyond; differences stay exact to a hundredth of a micrometre
ROAD = "road"


@dataclass
class _Element:
    """A node, way or relation while it is being read."""

    kind: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)  # of a way
    members: list[tuple[str, str]] = field(default_factory=list)  # of a relation: role and way


class _Map:
    """What the parser collects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, tuple[float, float]] = {}
        self.ways: dict[str, list[str]] = {}
        self.lanelets: list[_Element] = []
        self._depth = 0
        self._seen: set[tuple[str, str]] = set()
        self._now: _Element | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            found = f"course file {self.path}: elements more than {MOST_DEPTH} deep"
            raise MonoError(found, "a Lanelet2 map (OSM XML)", "export the map again")
        now = self._now
        if tag in ("node", "way", "relation"):
            # An editor keeps what was deleted, marked so, until it is uploaded.
            deleted = attributes.get("action") == "delete" or attributes.get("visible") == "false"
            self._now = None if deleted else _Element(tag, attributes.get("id", ""))
        elif now is not None and tag == "tag":
            now.tags[attributes.get("k", "")] = attributes.get("v", "")
        elif now is not None and tag == "nd":
            now.points.append(attributes.get("ref", ""))
        elif now is not None and tag == "member":
            now.members.append((attributes.get("role", ""), attributes.get("ref", "")))

    def end(self, tag: str) -> None:
        self._depth -= 1
        now = self._now
        if now is None or tag != now.kind:
            return
        if (tag, now.name) in self._seen:
            found = f"course file {self.path} has the {tag} {now.name!r} twice"
            raise MonoError(found, "each id once", "export the map again")
        self._seen.add((tag, now.name))
        if tag == "node" and "local_x" in now.tags and "local_y" in now.tags:
            self.places[now.name] = (self._metres(now, "local_x"), self._metres(now, "local_y"))
        elif tag == "way":
            self.ways[now.name] = now.points
        elif tag == "relation" and now.tags.get("type") == "lanelet":
            self.lanelets.append(now)
        self._now = None

    def _metres(self, node: _Element, tag: str) -> float:
        try:
            value = float(node.tags[tag])
        except ValueError:
            value = np.nan
        if not abs(value) <= FARTHEST_M:
            found = f"course file {self.path}, node {node.name}: {tag} is {node.tags[tag][:40]!r}"
            raise MonoError(found, f"metres in the map, at most {FARTHEST_M:g}", "export the map again")
        return value

    def entity(self, name: str, *_: object) -> None:
        raise MonoError(f"course file {self.path} defines the entity {name!r}", "plain OSM XML", "export the map again")


def read_lanelets(path: Path, text: str, named: bool) -> tuple[Bounds, list[str]]:
    """The bounds of all lanelets of subtype road (``named``: of any subtype), and which are left out and why.

    Raises:
        MonoError: no XML, hostile XML, or a map without metres.
    """
    found = _Map(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
    parser.EntityDeclHandler = found.entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise MonoError(f"course file {path}: {error}", "a Lanelet2 map (OSM XML)", "export the map again") from error
    if not found.places:
        complaint, expected = f"course file {path} without local_x/local_y tags on its nodes", "metres in the map frame"
        raise MonoError(complaint, expected, "export the map with local coordinates (MGRS), as Autoware's map tools do")
    bounds: dict[str, dict[str, list[FloatArray]]] = {}
    without: list[str] = []
    count = 0
    for lanelet in found.lanelets:
        if not named and lanelet.tags.get("subtype", ROAD) != ROAD:
            continue
        sides: dict[str, list[FloatArray]] = defaultdict(list)
        whole = True
        for role, way in lanelet.members:
            if role in ("left", "right"):
                names = found.ways.get(way, [])
                count += len(names)
                if count > MOST_POINTS:
                    complaint = f"course file {path}: lanelets with more than {MOST_POINTS:,} points"
                    raise MonoError(complaint, "a map of some circuits", "export the part with the circuit alone")
                points = [found.places.get(name) for name in names]
                whole = whole and bool(points) and None not in points
                sides[role].append(np.array([point for point in points if point is not None]).reshape(-1, 2))
        if whole:
            bounds[lanelet.name] = sides
        else:
            without.append(lanelet.name)
    lost = "lanelets whose bounds have nodes without local_x/local_y are left out, and any loop through them"
    said = [f"{lost} ({listed(without)})"]
    return bounds, said if without else []


def listed(names: list[str], most: int = 30) -> str:
    """Names in a row, the rest of a long row as a number."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
