"""Upright things beside the road: cones, poles, tyre walls, boards and trees.

Each is a few flat coloured polygons. A round thing always shows its face; a wall has a direction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from closed_loop.course.course import Course
from closed_loop.simulator.camera import Camera
from closed_loop.simulator.ground import Ground, Image
from collector.geometry.poses import FloatArray

# A face: outline (k, 2) as metres across and up, and an RGB colour; a shape: height and faces.
Face = tuple[list[tuple[float, float]], FloatArray]
Shape = tuple[float, list[Face]]

SMALLEST_PX = 1.5
CLEAR_OF_ROAD_M = 0.55


class Item(NamedTuple):
    """One thing: where it stands, which way its width runs (NaN: across the view), and its faces."""

    xy: FloatArray
    heading_rad: float
    height_m: float
    faces: list[Face]


class Props:
    """Everything upright of a scene, in its final colours, flattened into arrays for one projection per picture."""

    def __init__(self, items: Sequence[Item] = ()) -> None:
        self.xy = np.array([item.xy for item in items], np.float64).reshape(-1, 2)
        self.heading_rad = np.array([item.heading_rad for item in items], np.float64)
        self.height_m = np.array([item.height_m for item in items], np.float64)
        outlines, owner = [], []
        self._faces: list[list[tuple[int, int, tuple[float, float, float]]]] = []
        start = 0
        for index, item in enumerate(items):
            self._faces.append([])
            for outline, (r, g, b) in item.faces:
                outlines.append(np.array(outline, np.float64))
                owner += [index] * len(outline)
                self._faces[-1].append((start, start + len(outline), (float(r), float(g), float(b))))
                start += len(outline)
        self._outline = np.concatenate(outlines) if outlines else np.zeros((0, 2))
        self._owner = np.array(owner, np.int64)

    def draw(self, image: Image, camera: Camera, pose: tuple[float, float, float], near_m: float, far_m: float) -> None:
        """Paint what is in view onto a picture, far things first."""
        x, y, yaw = pose
        cos, sin = np.cos(yaw), np.sin(yaw)
        dx, dy = self.xy[:, 0] - x, self.xy[:, 1] - y
        ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
        to_x, to_y = ahead - camera.x_m, left - camera.y_m
        depth = to_x * np.cos(camera.yaw_rad) + to_y * np.sin(camera.yaw_rad)
        aside = np.abs(to_y * np.cos(camera.yaw_rad) - to_x * np.sin(camera.yaw_rad))
        in_view = (depth > near_m) & (depth < far_m) & (aside < depth * np.tan(camera.hfov_rad / 2.0) + 4.0)
        in_view &= self.height_m * camera.focal_px > SMALLEST_PX * depth
        chosen = np.flatnonzero(in_view)
        if not len(chosen):
            return
        # Across is to the right as seen: at a right angle to the view, or along the wall.
        facing = np.arctan2(to_y, to_x) - np.pi / 2.0
        across = np.where(np.isnan(self.heading_rad), facing, self.heading_rad - yaw)
        shown = np.flatnonzero(in_view[self._owner])
        owner, outline = self._owner[shown], self._outline[shown]
        forward = ahead[owner] + outline[:, 0] * np.cos(across)[owner]
        sideways = left[owner] + outline[:, 0] * np.sin(across)[owner]
        seen = camera.optical(np.stack([forward, sideways, outline[:, 1]], axis=1))
        deep = np.maximum(seen[:, 2:], 1e-3)
        pixels = np.round((camera.focal_px * seen[:, :2] / deep + camera.K[:2, 2]) * 16.0).clip(-3e5, 3e5)
        fixed, out = np.zeros((len(self._owner), 2), np.int32), np.zeros(len(self._owner), bool)
        fixed[shown] = pixels
        out[shown] = seen[:, 2] < near_m  # a face that reaches behind the lens is left out
        for index in chosen[np.argsort(-np.hypot(to_x[chosen], to_y[chosen]))]:
            for start, stop, colour in self._faces[index]:
                if not out[start:stop].any():
                    cv2.fillPoly(image, [fixed[start:stop]], colour, cv2.LINE_AA, 4)


def place_props(
    course: Course, ground: Ground, rng: np.random.Generator, light: FloatArray, wanted: bool = True
) -> Props:
    """Draw what stands beside a course; nothing stands on the road or closer than half a metre to it."""
    placed: list[Item] = []
    if wanted:
        _scatter(course, rng, placed)
        _line_bends(course, rng, placed)
    tint = light * rng.uniform(0.85, 1.1)
    kept = []
    for item in placed:
        reach = max(abs(across) for across, _ in item.faces[0][0])
        round_thing = np.isnan(item.heading_rad)
        direction = (0.0, 0.0) if round_thing else (np.cos(item.heading_rad), np.sin(item.heading_rad))
        ends = item.xy + np.outer((-reach, 0.0, reach), direction)
        if ground.off_road_m(ends).min() > CLEAR_OF_ROAD_M + (reach if round_thing else 0.0):
            faces = [(outline, (colour * tint).clip(0, 255)) for outline, colour in item.faces]
            kept.append(item._replace(faces=faces))
    return Props(kept)


def _scatter(course: Course, rng: np.random.Generator, placed: list[Item]) -> None:
    """Cones, poles and trees at random stations."""
    amount = course.length_m * rng.uniform(0.12, 0.38)
    for _ in range(int(amount)):
        s, side = rng.uniform(0.0, course.length_m), rng.choice([-1.0, 1.0])
        edge = float(course.at(s, course.width_left_m if side > 0 else course.width_right_m))
        kind = rng.choice(["cone", "pole", "tree"], p=[0.4, 0.15, 0.45])
        beyond = {"cone": rng.uniform(0.7, 1.8), "pole": rng.uniform(0.9, 3.0), "tree": rng.uniform(2.5, 16.0)}[kind]
        xy = course.pose_at(s, side * (edge + beyond))[:2]
        height, faces = {"cone": _cone, "pole": _pole, "tree": _tree}[kind](rng)
        placed.append(Item(xy, float("nan"), height, faces))


def _line_bends(course: Course, rng: np.random.Generator, placed: list[Item]) -> None:
    """Tyre walls and boards along the outside of some bends and along some straights."""
    s = 0.0
    while s < course.length_m:
        run = rng.uniform(4.0, 16.0)
        bend = float(course.at(s, course.curvature_1pm))
        side = -np.sign(bend) if abs(bend) > 0.03 else rng.choice([-1.0, 1.0])
        if rng.random() < (0.6 if abs(bend) > 0.06 else 0.22):
            edge = course.width_left_m if side > 0 else course.width_right_m
            away = rng.uniform(0.8, 2.2)
            make = _tyres if rng.random() < 0.6 else _board
            length = 1.0
            for k, station in enumerate(np.arange(s, min(s + run, course.length_m), length)):
                pose = course.pose_at(station, side * (float(course.at(station, edge)) + away))
                height, faces = make(rng, k, length)
                placed.append(Item(pose[:2], float(pose[2]), height, faces))
        s += run + rng.uniform(1.0, 8.0)


def _rgb(*value: float) -> FloatArray:
    return np.array(value, np.float64)


def _box(half_m: float, low_m: float, high_m: float, colour: FloatArray, top_half_m: float | None = None) -> Face:
    """An upright face from ``low_m`` to ``high_m``, as wide at its top as below unless told otherwise."""
    top = half_m if top_half_m is None else top_half_m
    return [(-half_m, low_m), (half_m, low_m), (top, high_m), (-top, high_m)], colour


def _cone(rng: np.random.Generator) -> Shape:
    orange, white = _rgb(226, 92, 26) + rng.normal(0, 8, 3), _rgb(236, 236, 232)
    faces = [_box(0.18, 0.0, 0.04, orange * 0.8), _box(0.13, 0.04, 0.5, orange, 0.03)]
    return 0.5, [*faces, _box(0.098, 0.19, 0.31, white, 0.072)]


def _pole(rng: np.random.Generator) -> Shape:
    height = float(rng.uniform(1.8, 3.6))
    faces = [_box(0.05, 0.0, height, _rgb(150, 152, 156) * rng.uniform(0.6, 1.1))]
    if rng.random() < 0.5:
        faces.append(_box(0.35, height - 0.6, height, _rgb(*rng.uniform(30, 230, 3))))
    return height, faces


def _tree(rng: np.random.Generator) -> Shape:
    height, half = float(rng.uniform(3.0, 7.0)), float(rng.uniform(0.9, 2.0))
    leaf = _rgb(48, 84, 40) + rng.normal(0, 10, 3)
    trunk = height * 0.3
    turn = np.linspace(0.0, 2.0 * np.pi, 11)[:-1]
    swell = rng.uniform(0.85, 1.15, 10)
    crown = [
        (float(half * r * np.cos(a)), float(trunk + (height - trunk) * 0.5 * (1.0 + r * np.sin(a) / 1.15)))
        for a, r in zip(turn, swell, strict=True)
    ]
    sunny = [(0.55 * a - 0.15 * half, 0.55 * (z - trunk) + trunk + 0.38 * (height - trunk)) for a, z in crown]
    wood = _box(half * 0.09, 0.0, trunk * 1.3, _rgb(84, 66, 50), half * 0.07)
    return height, [wood, (crown, leaf), (sunny, leaf * 1.18)]


def _tyres(rng: np.random.Generator, index: int, length_m: float) -> Shape:
    half, tint = length_m / 2.0 + 0.01, rng.uniform(0.85, 1.15)
    belt = _rgb(206, 38, 34) if (index // 2) % 2 else _rgb(228, 228, 224)
    return 0.65, [_box(half, 0.0, 0.65, _rgb(38, 38, 40) * tint), _box(half, 0.24, 0.44, belt)]


def _board(rng: np.random.Generator, index: int, length_m: float) -> Shape:
    half = length_m / 2.0 + 0.01
    white, blue = _rgb(226, 226, 220), _rgb(38, 66, 160)
    ground, mark = (white, blue) if index % 4 < 2 else (blue, white)
    return 0.9, [_box(half, 0.05, 0.9, ground), _box(half * 0.5, 0.35, 0.6, mark * rng.uniform(0.9, 1.1))]
