"""Upright things beside the road: cones, poles, tyre walls, boards and trees.

Each is a few flat coloured polygons. A round thing always shows its face; a wall has a direction of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from closed_loop.simulator.camera import Camera
from closed_loop.simulator.course import Course
from closed_loop.simulator.ground import Ground

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]
# A face: outline (k, 2) as metres across and up, and an RGB colour.
Face = tuple[list[tuple[float, float]], FloatArray]

SMALLEST_PX = 1.5
CLEAR_OF_ROAD_M = 0.55


@dataclass
class Props:
    """Everything upright of a scene, flattened into arrays for one projection per picture."""

    xy: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    heading_rad: FloatArray = field(default_factory=lambda: np.zeros(0))  # NaN: turns its face to the viewer
    height_m: FloatArray = field(default_factory=lambda: np.zeros(0))
    faces: list[list[tuple[FloatArray, tuple[float, float, float]]]] = field(default_factory=list)

    def draw(
        self, image: Image, camera: Camera, pose: tuple[float, float, float], near_m: float, far_m: float
    ) -> None:
        """Paint what is in view onto a picture, far things first."""
        if not len(self.xy):
            return
        x, y, yaw = pose
        cos, sin = np.cos(yaw), np.sin(yaw)
        offset = self.xy - (x, y)
        ego = np.stack([cos * offset[:, 0] + sin * offset[:, 1], -sin * offset[:, 0] + cos * offset[:, 1]], axis=1)
        seat = ego - (camera.x_m, camera.y_m)
        depth = seat[:, 0] * np.cos(camera.yaw_rad) + seat[:, 1] * np.sin(camera.yaw_rad)
        aside = np.abs(-seat[:, 0] * np.sin(camera.yaw_rad) + seat[:, 1] * np.cos(camera.yaw_rad))
        in_view = (depth > near_m) & (depth < far_m) & (aside < depth * np.tan(camera.hfov_rad / 2.0) + 4.0)
        in_view &= self.height_m * camera.focal_px > SMALLEST_PX * depth
        chosen = np.flatnonzero(in_view)
        chosen = chosen[np.argsort(-np.hypot(seat[chosen, 0], seat[chosen, 1]))]
        facing = np.arctan2(seat[:, 1], seat[:, 0]) - np.pi / 2.0  # across, to the right as seen
        across = np.where(np.isnan(self.heading_rad), facing, self.heading_rad - yaw)
        for index in chosen:
            step = (np.cos(across[index]), np.sin(across[index]))
            for outline, colour in self.faces[index]:
                points = np.empty((len(outline), 3))
                points[:, 0] = ego[index, 0] + outline[:, 0] * step[0]
                points[:, 1] = ego[index, 1] + outline[:, 0] * step[1]
                points[:, 2] = outline[:, 1]
                seen = camera.optical(points)
                if seen[:, 2].min() < near_m:
                    continue
                pixels = camera.focal_px * seen[:, :2] / seen[:, 2:] + camera.K[:2, 2]
                if np.abs(pixels).max() < 16000.0:
                    cv2.fillPoly(image, [np.round(pixels * 16.0).astype(np.int32)], colour, cv2.LINE_AA, 4)


def place_props(
    course: Course, ground: Ground, rng: np.random.Generator, light: FloatArray, wanted: bool = True
) -> Props:
    """Draw what stands beside a course; nothing stands on the road or closer than half a metre to it."""
    placed: list[tuple[FloatArray, float, float, list[Face]]] = []
    if wanted:
        _scatter(course, rng, placed)
        _line_bends(course, rng, placed)
    result = Props()
    if not placed:
        return result
    kept = []
    for item in placed:
        xy, heading, _, faces = item
        reach = max(abs(a) for outline, _ in faces[:1] for a, _ in outline)
        ends = xy + np.array([[0.0, 0.0]]) if np.isnan(heading) else xy + np.outer(
            [-reach, 0.0, reach], [np.cos(heading), np.sin(heading)]
        )
        room = ground.off_road_m(ends).min()
        if room > CLEAR_OF_ROAD_M + (reach if np.isnan(heading) else 0.0):
            kept.append(item)
    if not kept:
        return result
    tint = light * rng.uniform(0.85, 1.1)

    def shade(colour: FloatArray) -> tuple[float, float, float]:
        r, g, b = (colour * tint).clip(0, 255)
        return float(r), float(g), float(b)

    return Props(
        np.array([item[0] for item in kept]),
        np.array([item[1] for item in kept]),
        np.array([item[2] for item in kept]),
        [[(np.array(outline, np.float64), shade(colour)) for outline, colour in item[3]] for item in kept],
    )


def _scatter(course: Course, rng: np.random.Generator, placed: list[tuple[FloatArray, float, float, list[Face]]]) -> None:
    """Cones, poles and trees at random stations."""
    amount = course.length_m * rng.uniform(0.12, 0.38)
    for _ in range(int(amount)):
        s, side = rng.uniform(0.0, course.length_m), rng.choice([-1.0, 1.0])
        edge = float(course.at(s, course.width_left_m if side > 0 else course.width_right_m))
        kind = rng.choice(["cone", "pole", "tree"], p=[0.4, 0.15, 0.45])
        beyond = {"cone": rng.uniform(0.7, 1.8), "pole": rng.uniform(0.9, 3.0), "tree": rng.uniform(2.5, 16.0)}[kind]
        xy = course.pose_at(s, side * (edge + beyond))[:2]
        height, faces = {"cone": _cone, "pole": _pole, "tree": _tree}[kind](rng)
        placed.append((xy, float("nan"), height, faces))


def _line_bends(course: Course, rng: np.random.Generator, placed: list[tuple[FloatArray, float, float, list[Face]]]) -> None:
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
                placed.append((pose[:2], float(pose[2]), height, faces))
        s += run + rng.uniform(1.0, 8.0)


def _rgb(*value: float) -> FloatArray:
    return np.array(value, np.float64)


def _cone(rng: np.random.Generator) -> tuple[float, list[Face]]:
    orange, white = _rgb(226, 92, 26) + rng.normal(0, 8, 3), _rgb(236, 236, 232)
    return 0.5, [
        ([(-0.18, 0.0), (0.18, 0.0), (0.18, 0.04), (-0.18, 0.04)], orange * 0.8),
        ([(-0.13, 0.04), (0.13, 0.04), (0.03, 0.5), (-0.03, 0.5)], orange),
        ([(-0.098, 0.19), (0.098, 0.19), (0.072, 0.31), (-0.072, 0.31)], white),
    ]


def _pole(rng: np.random.Generator) -> tuple[float, list[Face]]:
    height = float(rng.uniform(1.8, 3.6))
    grey = _rgb(150, 152, 156) * rng.uniform(0.6, 1.1)
    faces: list[Face] = [([(-0.05, 0.0), (0.05, 0.0), (0.05, height), (-0.05, height)], grey)]
    if rng.random() < 0.5:
        colour = _rgb(*rng.uniform(30, 230, 3))
        faces.append(([(-0.35, height - 0.6), (0.35, height - 0.6), (0.35, height), (-0.35, height)], colour))
    return height, faces


def _tree(rng: np.random.Generator) -> tuple[float, list[Face]]:
    height, half = float(rng.uniform(3.0, 7.0)), float(rng.uniform(0.9, 2.0))
    leaf = _rgb(48, 84, 40) + rng.normal(0, 10, 3)
    trunk = height * 0.3
    turn = np.linspace(0.0, 2.0 * np.pi, 11)[:-1]
    swell = rng.uniform(0.85, 1.15, 10)
    crown = [
        (float(half * r * np.cos(a)), float(trunk + (height - trunk) * 0.5 * (1.0 + r * np.sin(a) / 1.15)))
        for a, r in zip(turn, swell)
    ]
    sunny = [(0.55 * a - 0.15 * half, 0.55 * (z - trunk) + trunk + 0.38 * (height - trunk)) for a, z in crown]
    return height, [
        ([(-half * 0.09, 0.0), (half * 0.09, 0.0), (half * 0.07, trunk * 1.3), (-half * 0.07, trunk * 1.3)], _rgb(84, 66, 50)),
        (crown, leaf), (sunny, leaf * 1.18),
    ]


def _tyres(rng: np.random.Generator, index: int, length_m: float) -> tuple[float, list[Face]]:
    half, tint = length_m / 2.0 + 0.01, rng.uniform(0.85, 1.15)
    belt = _rgb(206, 38, 34) if (index // 2) % 2 else _rgb(228, 228, 224)
    return 0.65, [
        ([(-half, 0.0), (half, 0.0), (half, 0.65), (-half, 0.65)], _rgb(38, 38, 40) * tint),
        ([(-half, 0.24), (half, 0.24), (half, 0.44), (-half, 0.44)], belt),
    ]


def _board(rng: np.random.Generator, index: int, length_m: float) -> tuple[float, list[Face]]:
    half = length_m / 2.0 + 0.01
    ground, mark = (_rgb(226, 226, 220), _rgb(38, 66, 160)) if index % 4 < 2 else (_rgb(38, 66, 160), _rgb(226, 226, 220))
    return 0.9, [
        ([(-half, 0.05), (half, 0.05), (half, 0.9), (-half, 0.9)], ground),
        ([(-half * 0.5, 0.35), (half * 0.5, 0.35), (half * 0.5, 0.6), (-half * 0.5, 0.6)], mark * rng.uniform(0.9, 1.1)),
    ]
