"""Small course files: a ring of four lanes with a pit lane, as a Lanelet2 map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ORIGIN = np.array([89650.0, 43150.0])


def circle(radius_m: float, count: int, first: float = 0.0, last: float = 2.0 * np.pi) -> np.ndarray:
    """Clockwise."""
    angle = np.linspace(first, last, count)
    return ORIGIN + radius_m * np.stack([np.cos(angle), -np.sin(angle)], axis=1)


def ring_lanes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A clockwise ring of radius 20 m and width 6 m in four lanes, and a pit lane that leaves and joins it."""
    lanes = {}
    for k in range(4):
        ends = (k * np.pi / 2.0, (k + 1) * np.pi / 2.0)
        lanes[f"lane{k}"] = (circle(23.0, 25, *ends), circle(17.0, 19, *ends))
    first = (lanes["lane0"][0][-1], lanes["lane0"][1][-1])
    last = (lanes["lane1"][0][-1], lanes["lane1"][1][-1])
    lanes["pit"] = (np.stack([first[0], last[0]]), np.stack([first[1], last[1]]))  # the chord: shorter than lane1
    return lanes


def write_osm(path: Path) -> Path:
    """As map editors write it: members in any order, a right bound backwards, a bound cut in two."""
    nodes, ways, relations, ids = [], [], [], {}

    def node(point: np.ndarray) -> int:
        key = (round(float(point[0]), 4), round(float(point[1]), 4))
        if key not in ids:
            ids[key] = len(ids) + 1
            nodes.append(f'<node id="{ids[key]}"><tag k="local_x" v="{key[0]}"/><tag k="local_y" v="{key[1]}"/></node>')
        return ids[key]

    def way(name: str, points: np.ndarray) -> str:
        ways.append(f'<way id="{name}">' + "".join(f'<nd ref="{node(p)}"/>' for p in points) + "</way>")
        return name

    for name, (left, forward) in reversed(ring_lanes().items()):
        right = forward[::-1] if name == "lane2" else forward
        bounds = [("left", way(name + "L", left))]
        if name == "lane3":
            bounds = [("left", way(name + "Lb", left[12:])), ("left", way(name + "La", left[:13]))]
        bounds.append(("right", way(name + "R", right)))
        members = "".join(f'<member type="way" role="{role}" ref="{ref}"/>' for role, ref in bounds)
        tags = '<tag k="type" v="lanelet"/><tag k="subtype" v="road"/>'
        relations.append(f'<relation id="{name}">{members}{tags}</relation>')
    relations.append('<relation id="zebra"><tag k="type" v="lanelet"/><tag k="subtype" v="crosswalk"/></relation>')
    path.write_text('<?xml version="1.0"?><osm>' + "".join(nodes + ways + relations) + "</osm>")
    return path
