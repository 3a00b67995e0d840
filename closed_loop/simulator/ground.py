"""The ground as a picture from above: grass, asphalt, edge lines, kerbs, start line; drawn once per course.

Everything that may differ between two days or two circuits (colours, grain, worn lines, kerbs) is drawn from
the seed, so that a model trained on many seeds looks at the road and not at one green.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from closed_loop.course.course import Course
from collector.geometry.poses import FloatArray

Image = NDArray[np.uint8]

FINEST_PX_M = 0.05
MARGIN_M = 22.0
BUDGET_PX = 16_000_000  # three bytes each and a third more for the mips: 64 MB
LEVELS = 6
LINE_FROM_EDGE_M = 0.18
KERB_M = 0.45
EDGE_MAP_STEP = 4


@dataclass(frozen=True, eq=False)
class Ground:
    """A texture of the plane."""

    levels: tuple[Image, ...]  # RGB pictures, each half the size of the one before; row 0 is the smallest y of the map
    px_m: float  # metres per pixel of the first level
    origin_xy: FloatArray  # (2,) map position of the first level's first pixel centre
    beyond_rgb: tuple[float, float, float]  # colour of everything outside
    edge_map: NDArray[np.float32]  # (h, w) float32, metres outside the road (0 on it), every `EDGE_MAP_STEP` pixels

    def pixel_from_map(self, level: int) -> FloatArray:
        """(3, 3) from (x, y, 1) relative to ``origin_xy`` to pixels of a level."""
        scale = 1.0 / (self.px_m * 2**level)
        shift = 0.5 * (0.5**level - 1.0)  # a pixel of level l is the mean of 2^l x 2^l pixels
        return np.array([[scale, 0.0, shift], [0.0, scale, shift], [0.0, 0.0, 1.0]])

    def off_road_m(self, xy: ArrayLike) -> FloatArray:
        """How far outside the road points (..., 2) lie; 0 on the road, at least the margin outside the map."""
        cell = (np.asarray(xy, np.float64) - self.origin_xy) / (self.px_m * EDGE_MAP_STEP)
        col, row = np.round(cell[..., 0]).astype(int), np.round(cell[..., 1]).astype(int)
        height, width = self.edge_map.shape
        inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
        value = self.edge_map[row.clip(0, height - 1), col.clip(0, width - 1)]
        return np.where(inside, value, MARGIN_M).astype(np.float64)


@dataclass(frozen=True)
class Look:
    """Colours (RGB) and habits of one day at one circuit."""

    land: tuple[FloatArray, FloatArray]
    asphalt: tuple[FloatArray, FloatArray]
    line: FloatArray
    kerb: tuple[FloatArray, FloatArray]
    line_width_m: float
    wear: float
    kerb_from_1pm: float
    kerb_block_m: float
    light: FloatArray


def draw_look(rng: np.random.Generator) -> Look:
    """A look: mostly grass, sometimes dry or stony; light warm or cold, bright or dull."""
    lands = [
        ((52, 92, 40), (96, 136, 66)),
        ((44, 84, 34), (78, 122, 56)),
        ((104, 112, 62), (150, 148, 92)),
        ((112, 104, 84), (156, 146, 122)),
    ]
    low, high = (np.array(c, np.float64) for c in lands[int(rng.choice(4, p=(0.45, 0.3, 0.15, 0.1)))])
    grey = rng.uniform(72.0, 118.0)
    cast = rng.normal(0.0, 3.0, 3)
    second = np.array([[238, 236, 230], [236, 206, 60], [40, 70, 170]][int(rng.choice(3, p=(0.75, 0.1, 0.15)))])
    light = rng.uniform(0.78, 1.12) * (1.0 + np.array([1.0, 0.0, -1.0]) * rng.uniform(-0.07, 0.07))
    return Look(
        (low + rng.normal(0, 6, 3), high + rng.normal(0, 6, 3)),
        (grey - 16.0 + cast, grey + 16.0 + cast),
        np.array([232.0, 232.0, 226.0]) * rng.uniform(0.88, 1.05),
        (np.array([188.0, 34.0, 30.0]) + rng.normal(0, 10, 3), second.astype(np.float64)),
        float(rng.uniform(0.11, 0.18)),
        float(rng.uniform(0.0, 0.35)),
        float(rng.uniform(0.05, 0.11)),
        float(rng.uniform(0.7, 1.3)),
        light,
    )


def paint_ground(course: Course, seed: int) -> Ground:
    """Draw the texture of a course (some tenths of a second, under 64 MB whatever its size)."""
    rng = np.random.default_rng([31, seed])
    look = draw_look(rng)
    low, high = course.xy.min(axis=0) - MARGIN_M, course.xy.max(axis=0) + MARGIN_M
    px_m = max(FINEST_PX_M, float(np.sqrt(np.prod(high - low) / BUDGET_PX)))
    block = 2 ** (LEVELS - 1)  # sides that halve without remainder keep all levels aligned
    width, height = (int(np.ceil(side / px_m / block)) * block for side in high - low)
    painter = _Painter(course, low, px_m, (height, width), look, rng)
    picture, edge_map = painter.paint()
    levels = [picture]
    for _ in range(LEVELS - 1):
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        levels.append(np.asarray(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA), np.uint8))
    rim = np.concatenate([levels[-1][0], levels[-1][-1]]).mean(axis=0)
    return Ground(tuple(levels), px_m, low, (float(rim[0]), float(rim[1]), float(rim[2])), edge_map)


class _Painter:
    """The steps of one painting; they share the grid."""

    def __init__(
        self, course: Course, low: FloatArray, px_m: float, size: tuple[int, int], look: Look, rng: np.random.Generator
    ) -> None:
        self.course, self.low, self.px_m, self.size, self.look, self.rng = course, low, px_m, size, look, rng
        self.fine = rng.integers(0, 256, (512, 512), dtype=np.uint8)
        self.normal = np.stack([-np.sin(course.yaw_rad), np.cos(course.yaw_rad)], axis=1)

    def paint(self) -> tuple[Image, NDArray[np.float32]]:
        picture = self._grain(self.look.land, coarse_m=4.0, coarse_share=0.65)
        self._kerbs(picture)
        road = self._road_mask()
        asphalt = self._grain(self.look.asphalt, coarse_m=7.0, coarse_share=0.5)
        self._patches(asphalt)
        cv2.copyTo(asphalt, road, picture)
        del asphalt
        self._edge_lines(picture, np.asarray(cv2.distanceTransform(road, cv2.DIST_L2, 5), np.float32))
        self._start_line(picture)
        outside = cv2.distanceTransform(255 - road, cv2.DIST_L2, 5)[::EDGE_MAP_STEP, ::EDGE_MAP_STEP]
        return picture, (outside * self.px_m).astype(np.float32)

    def _pixels(self, xy: FloatArray) -> NDArray[np.int32]:
        """Map points as fixed-point pixels (4 fractional bits, OpenCV's ``shift=4``)."""
        return np.round((xy - self.low) / self.px_m * 16.0).astype(np.int32)

    def _grain(self, colours: tuple[FloatArray, FloatArray], coarse_m: float, coarse_share: float) -> Image:
        """Noise of two scales through a two-colour ramp."""
        height, width = self.size
        cell = max(2, round(coarse_m / self.px_m))
        coarse = self.rng.integers(0, 256, (height // cell + 3, width // cell + 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[:height, :width]
        turned = np.ascontiguousarray(np.rot90(self.fine, int(self.rng.integers(4))))
        fine = np.tile(turned, (height // 512 + 1, width // 512 + 1))[:height, :width]
        value = cv2.addWeighted(smooth, coarse_share, fine, 1.0 - coarse_share, 0.0)
        ramp = np.linspace(colours[0], colours[1], 256) * self.look.light
        return np.asarray(cv2.applyColorMap(value, ramp.clip(0, 255).astype(np.uint8)[:, None, :]), np.uint8)

    def _colour(self, rgb: FloatArray) -> tuple[float, float, float]:
        r, g, b = (rgb * self.look.light).clip(0, 255)
        return float(r), float(g), float(b)

    def _road_mask(self) -> Image:
        """255 on the road: the quadrilaterals between successive cross-sections."""
        mask, c = np.zeros(self.size, np.uint8), self.course
        # OpenCV fills every pixel an outline touches: half a pixel less on each side is the true edge.
        left, right = c.width_left_m - 0.5 * self.px_m, 0.5 * self.px_m - c.width_right_m
        for _, quad in self._quads(left, right):
            cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, 4)
        return mask

    def _quads(self, one_m: FloatArray, other_m: FloatArray) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """The pixels between two offsets (N,) to the left of the line, a quadrilateral per point and the next."""
        one, other = (self._pixels(self.course.xy + self.normal * offset[:, None]) for offset in (one_m, other_m))
        for i in range(len(one) - (0 if self.course.closed else 1)):
            j = (i + 1) % len(one)
            yield i, np.asarray(cv2.convexHull(np.array([one[i], one[j], other[j], other[i]])), np.int32)

    def _kerbs(self, picture: Image) -> None:
        """Red and white blocks outside both edges of the bends.

        Painted before the road, which covers whatever a tight inner edge folds over.
        """
        c, look = self.course, self.look
        bend = np.abs(c.curvature_1pm) > look.kerb_from_1pm
        for sign, width in ((1.0, c.width_left_m), (-1.0, c.width_right_m)):
            if self.rng.random() < 0.12:
                continue
            for i, quad in self._quads(sign * (width - 0.1), sign * (width + KERB_M)):
                if bend[i]:
                    colour = self._colour(look.kerb[int(c.s_m[i] / look.kerb_block_m) % 2])
                    cv2.fillConvexPoly(picture, quad, colour, cv2.LINE_AA, 4)

    def _patches(self, asphalt: Image) -> None:
        """Repaired and stained spots."""
        for _ in range(int(self.rng.integers(10, 60))):
            s, lateral = self.rng.uniform(0, self.course.length_m), self.rng.uniform(-3.5, 3.5)
            centre = self._pixels(self.course.pose_at(s, lateral)[:2])
            axes = (int(self.rng.uniform(0.3, 2.2) / self.px_m * 16), int(self.rng.uniform(0.2, 0.9) / self.px_m * 16))
            shade = self.look.asphalt[0] + self.rng.uniform(-14.0, 10.0)
            angle = self.rng.uniform(0.0, 180.0)
            place = (int(centre[0]), int(centre[1]))
            cv2.ellipse(asphalt, place, axes, angle, 0.0, 360.0, self._colour(shade), -1, cv2.LINE_8, 4)

    def _edge_lines(self, picture: Image, inside_px: NDArray[np.float32]) -> None:
        """White lines just inside the edge, worn away in places."""
        half = 0.5 * self.look.line_width_m
        # The outermost road pixel counts 1 and lies half a pixel inside.
        # A strip that is wide enough is cut out first: of millions of pixels the line covers some thousands.
        strip = np.flatnonzero(cv2.inRange(inside_px, 0.1, (LINE_FROM_EDGE_M + 2.0 * half) / self.px_m + 3.0))
        depth = (inside_px.ravel()[strip] - np.float32(0.5)) * np.float32(self.px_m)
        away = np.abs(depth - np.float32(LINE_FROM_EDGE_M + half))
        near, away = strip[away < half + self.px_m], away[away < half + self.px_m]
        cover = np.clip((half - away) / self.px_m + 0.5, 0.0, 1.0)
        row, col = np.divmod(near, self.size[1])
        worn = self.fine[(row // 24) % 512, (col // 24) % 512] < 255.0 * self.look.wear
        dust = self.fine[row % 512, col % 512] / 255.0
        cover *= np.where(worn, 0.35, 1.0) * (1.0 - 0.35 * dust)
        flat = picture.reshape(-1, 3)
        paint = np.array(self._colour(self.look.line))
        flat[near] = (flat[near] * (1.0 - cover[:, None]) + paint * cover[:, None]).astype(np.uint8)

    def _start_line(self, picture: Image) -> None:
        """Two rows of black and white squares across the start."""
        c = self.course
        squares = np.arange(-c.width_right_m[0] + 0.5, c.width_left_m[0] - 0.5, 0.4)
        for row in (0, 1):
            for k, lateral in enumerate(squares[:-1]):
                s = np.array([row, row + 1, row + 1, row]) * 0.4 + 0.3
                quad = c.pose_at(s, lateral + np.array([0.0, 0.0, 0.4, 0.4]))[:, :2]
                shade = np.array([228.0] * 3) if (k + row) % 2 else np.array([36.0] * 3)
                cv2.fillConvexPoly(picture, self._pixels(quad), self._colour(shade), cv2.LINE_AA, 4)
