"""A future path drawn where it will be driven: into the camera's picture, and from above as SVG.

Both drawings speak one language: a ribbon as wide as the kart, coloured from now to the end of the horizon, its left
border blue and marked L, its right border red and marked R, a dot at every second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.geometry.pinhole import (
    KART_FRONT_M,
    KART_REAR_M,
    KART_WIDTH_M,
    Pinhole,
    path_borders,
    path_ribbon,
    seen_part,
)
from collector.geometry.poses import FloatArray

Image = NDArray[np.uint8]

LEFT_RGB, RIGHT_RGB, PAST_RGB = (41, 121, 255), (255, 23, 68), (134, 142, 150)
# Now, half-way, the end of the horizon.
TIME_RGB = ((255, 241, 0), (255, 145, 0), (213, 0, 249))
_STEPS_PER_S = 10
# Depths between which a picture laid flat shows more than smear.
_NEAREST_SEEN_M, _FARTHEST_SEEN_M = 0.3, 40.0
_ABOVE_W, _ABOVE_H = 130.0, 164.0
_FAN_RGB = (
    *((32, 38, 46), (41, 121, 255), (229, 23, 60), (29, 142, 78), (224, 142, 42), (156, 54, 181), (0, 151, 167)),
    *((121, 85, 72), (216, 27, 96), (84, 110, 122), (130, 119, 23), (63, 81, 181), (0, 105, 92), (191, 54, 12)),
)
_SHIFT = 4  # cv2 takes coordinates as whole numbers of 1/16 pixel


def time_rgb(share: float) -> tuple[int, int, int]:
    """Colour of a moment, 0 now to 1 at the end of the horizon."""
    stops = np.linspace(0.0, 1.0, len(TIME_RGB))
    red, green, blue = (round(float(np.interp(share, stops, part))) for part in zip(*TIME_RGB, strict=True))
    return red, green, blue


def draw_seen(image_bgr: Image, future: ArrayLike, camera: Pinhole) -> Image:
    """A copy of the picture with the future path, (64, 3) ego poses, lying on the road, and the horizon dashed.

    The camera must be sized to the picture.
    """
    canvas, future = image_bgr.copy(), _near(future)
    height, width = canvas.shape[:2]
    scale = width / 480.0
    first, last = seen_part(future, camera)
    # Far outside the picture it no longer matters where, but cv2 must not overflow.
    left, right = np.clip(path_ribbon(future, camera), -8000.0, 8000.0)
    steps = len(future)
    layer = canvas.copy()
    for index in reversed(range(len(left) - 1)):  # from far to near, so that the near part lies on top
        quad = np.stack([left[index], left[index + 1], right[index + 1], right[index]])
        colour = _bgr(time_rgb((first + index) / max(1, steps - 1)))
        cv2.fillConvexPoly(layer, _fixed(quad), colour, cv2.LINE_AA, _SHIFT)
    canvas = np.asarray(cv2.addWeighted(layer, 0.5, canvas, 0.5, 0.0), np.uint8)
    for border, colour in ((left, LEFT_RGB), (right, RIGHT_RGB)):
        for below, rgb in ((max(3, round(4 * scale)), (255, 255, 255)), (max(1, round(2 * scale)), colour)):
            cv2.polylines(canvas, [_fixed(border)], False, _bgr(rgb), below, cv2.LINE_AA, _SHIFT)
    middle = camera.project(path_borders(future, 0.0)[0])
    drawn = None
    for second in range(1, steps // _STEPS_PER_S + 1):
        index = second * _STEPS_PER_S - 1
        if not (first <= index < last and _inside(middle[index], width, height)):
            continue
        # Far seconds lie on one another: a dot needs room to be read.
        if drawn is None or np.hypot(*(middle[index] - drawn)) > 11.0 * scale:
            drawn = middle[index]
            _dot(canvas, drawn, str(second), scale)
    _dash(canvas, camera.horizon_px, scale)
    for border, word, rgb in ((left, "L", LEFT_RGB), (right, "R", RIGHT_RGB)):
        inside = [point for point in border if _inside(point, width, height)]
        if inside:
            outwards = -18.0 if word == "L" else 6.0
            spot = np.clip(inside[0] + (outwards * scale, 0.0), (2, 14 * scale), (width - 14 * scale, height - 4))
            _word(canvas, spot, word, rgb, 0.6 * scale)
    return canvas


def draw_fan(image_bgr: Image, futures: Sequence[ArrayLike], camera: Pinhole) -> Image:
    """A copy of the picture with the middles of several futures, (64, 3) ego poses each, in :func:`fan_rgb`'s colours.

    The camera must be sized to the picture.
    """
    canvas: Image = image_bgr.copy()
    scale = canvas.shape[1] / 480.0
    for number, given in enumerate(futures):
        future = _near(given)
        first, last = seen_part(future, camera)
        whole = path_borders(np.vstack([np.zeros((1, 3)), future]), 0.0)[0][first : last + 1]
        line = np.clip(camera.project(whole), -8000.0, 8000.0)
        line = line[np.isfinite(line).all(axis=1)]
        if len(line) < 2:
            continue
        for rgb, wide in (((255, 255, 255), 5.0), (fan_rgb(number), 3.0)):
            cv2.polylines(canvas, [_fixed(line)], False, _bgr(rgb), max(1, round(wide * scale)), cv2.LINE_AA, _SHIFT)
    _dash(canvas, camera.horizon_px, scale)
    return canvas


def fan_rgb(number: int) -> tuple[int, int, int]:
    """The colour of one of several futures."""
    return _FAN_RGB[number % len(_FAN_RGB)]


def fan_svg(history: ArrayLike, futures: Sequence[ArrayLike], ground: str = "") -> str:
    """Several futures from above, over the frame laid flat where its data URI is given; as :func:`above_svg`."""
    past, paths = _near(history), [_near(future) for future in futures]
    view = AboveView.around(past, np.vstack(paths))
    parts = [f'<svg class="above" viewBox="0 0 {_ABOVE_W:g} {_ABOVE_H:g}" role="img" aria-label="several futures">']
    if ground:
        parts.append(f'<image href="{ground}" width="{_ABOVE_W:g}" height="{_ABOVE_H:g}"/>')
    parts.append(_line(view.place(past[:, :2]), PAST_RGB, 2.0))
    for number, path in enumerate(paths):
        whole = np.vstack([np.zeros((1, 3)), path])
        parts.append(_line(view.place(whole[:, :2]), fan_rgb(number), 2.0))
        spot = view.place(path[3 * _STEPS_PER_S - 1, :2])
        parts.append(f'<circle cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="1.7" fill="#fff" stroke="#20262e"/>')
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class AboveView:
    """The window of a drawing from above: forward is up, left is left."""

    middle: tuple[float, float]  # (x, y) of base_link in its centre, metres. per_m: drawing units per metre.
    per_m: float

    @classmethod
    def around(cls, history: ArrayLike, future: ArrayLike) -> AboveView:
        """The window that holds history, future and kart, at least 8 m wide and 12 m long."""
        poses = np.vstack([_near(history)[:, :2], _near(future)[:, :2]])
        low = np.minimum(poses.min(axis=0), (-KART_REAR_M, 0.0)) - 1.2
        high = np.maximum(poses.max(axis=0), (KART_FRONT_M, 0.0)) + 1.2
        low[1], high[1] = min(low[1], -4.0), max(high[1], 4.0)
        per_m = min(_ABOVE_H / max(high[0] - low[0], 12.0), _ABOVE_W / (high[1] - low[1]))
        return cls((float(low[0] + high[0]) / 2.0, float(low[1] + high[1]) / 2.0), float(per_m))

    def place(self, xy: ArrayLike) -> FloatArray:
        """(..., 2) drawing coordinates, right and down, of (..., 2) metres in base_link."""
        points = np.asarray(xy, np.float64)
        u = _ABOVE_W / 2.0 - (points[..., 1] - self.middle[1]) * self.per_m
        return np.stack([u, _ABOVE_H / 2.0 - (points[..., 0] - self.middle[0]) * self.per_m], axis=-1)

    def ground_from_drawing(self, sharpness: float) -> FloatArray:
        """(3, 3) from the pixels of this window, ``sharpness`` per drawing unit, to (x, y, 1) on the ground."""
        metre = 1.0 / (self.per_m * sharpness)
        shift = 0.5 * metre  # pixel centres are whole numbers
        top = self.middle[0] + _ABOVE_H / 2.0 / self.per_m - shift
        left = self.middle[1] + _ABOVE_W / 2.0 / self.per_m - shift
        return np.array([[0.0, -metre, top], [-metre, 0.0, left], [0.0, 0.0, 1.0]])


def ground_from_above(image_bgr: Image, camera: Pinhole, view: AboveView) -> Image:
    """The picture laid flat and seen from above, (H, W, 3) uint8 BGR, faded; white where it does not see the ground.

    With the right pitch and field the road's edges run parallel in it, whatever the path says. A drawing unit is two
    pixels.
    """
    sharpness = 2.0
    size = (round(_ABOVE_W * sharpness), round(_ABOVE_H * sharpness))
    to_picture = np.linalg.inv(camera.ground_from_pixel) @ view.ground_from_drawing(sharpness)
    how, white = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (255, 255, 255)
    border = cv2.BORDER_CONSTANT
    flat = cv2.warpPerspective(image_bgr, to_picture, size, flags=how, borderMode=border, borderValue=white)
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    ground = np.stack([u, v, np.ones_like(u)], axis=-1) @ view.ground_from_drawing(sharpness).T
    depth = camera.optical(ground * (1.0, 1.0, 0.0))[..., 2]
    flat[(depth < _NEAREST_SEEN_M) | (depth > _FARTHEST_SEEN_M)] = 255
    return np.asarray(cv2.addWeighted(flat, 0.85, np.full_like(flat, 255), 0.15, 0.0), np.uint8)


def above_svg(history: ArrayLike, future: ArrayLike, ground: str = "") -> str:
    """The path, (16, 3) and (64, 3) ego poses, from above as an SVG element, over a grid in metres.

    ``ground`` is the data URI of :func:`ground_from_above` to lie below it.
    """
    past, path = _near(history), _near(future)
    view = AboveView.around(past, path)
    place, per_m, (middle_x, middle_y) = view.place, view.per_m, view.middle
    box = f"0 0 {_ABOVE_W:g} {_ABOVE_H:g}"
    parts = [f'<svg class="above" viewBox="{box}" role="img" aria-label="the path from above, forward is up">']
    if ground:
        parts.append(f'<image href="{ground}" width="{_ABOVE_W:g}" height="{_ABOVE_H:g}"/>')
    # Lines at a round distance that leaves room between them, forward ones with their distance.
    step_m = next((step for step in (5.0, 10.0, 20.0, 50.0, 100.0, 500.0) if step * per_m > 22.0), 5000.0)
    reach_x, reach_y = _ABOVE_H / per_m / 2.0, _ABOVE_W / per_m / 2.0
    for x in np.arange(np.ceil((middle_x - reach_x) / step_m), (middle_x + reach_x) / step_m) * step_m:
        down = place([x, 0.0])[1]
        parts.append(
            f'<path d="M0 {down:.1f}H{_ABOVE_W:g}" stroke="#8d99a6" stroke-opacity="0.3"/>'
            f'<text x="3" y="{down - 2.0:.1f}" fill="#4d5761">{x + 0.0:.0f} m</text>'
        )
    for y in np.arange(np.ceil((middle_y - reach_y) / step_m), (middle_y + reach_y) / step_m) * step_m:
        aside = place([0.0, y])[0]
        parts.append(f'<path d="M{aside:.1f} 0V{_ABOVE_H:g}" stroke="#8d99a6" stroke-opacity="0.3"/>')
    parts.append(_line(place(past[:, :2]), PAST_RGB, max(1.5, KART_WIDTH_M * per_m), ' opacity="0.5"'))
    whole = np.vstack([np.zeros((1, 3)), path])
    for index in range(0, len(path), 4):
        piece = place(whole[index : index + 5, :2])
        colour = time_rgb((index + 2) / max(1, len(path)))
        parts.append(_line(piece, colour, max(2.0, KART_WIDTH_M * per_m), ' opacity="0.75"'))
    for border, rgb in zip(path_borders(whole), (LEFT_RGB, RIGHT_RGB), strict=True):
        parts.append(_line(place(border[:, :2]), rgb, 1.6))
    half = KART_WIDTH_M / 2.0
    corners = place([[KART_FRONT_M, half], [KART_FRONT_M, -half], [-KART_REAR_M, -half], [-KART_REAR_M, half]])
    parts.append(f'<polygon points="{_points(corners)}" fill="#20262e"/>')
    for second in range(1, len(path) // _STEPS_PER_S + 1):
        spot = place(path[second * _STEPS_PER_S - 1, :2])
        parts.append(f'<circle cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="1.7" fill="#fff" stroke="#20262e"/>')
    for word, side, rgb in (("L", 1.0, LEFT_RGB), ("R", -1.0, RIGHT_RGB)):
        x, y = np.add(place([0.0, side * half]), (-8.0 * side, 3.0))
        look = f'text-anchor="middle" font-weight="700" fill="{_hex(rgb)}"'
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{word}</text>')
    return "".join([*parts, "</svg>"])


def _near(poses: ArrayLike) -> FloatArray:
    """Poses no farther than anything drawn: a damaged line may put the kart anywhere."""
    return np.clip(np.asarray(poses, np.float64), -2000.0, 2000.0)


def _fixed(points: FloatArray) -> NDArray[np.int32]:
    return np.asarray(np.round(points * 2**_SHIFT), np.int32)


def _inside(point: FloatArray, width: int, height: int) -> bool:
    return bool(0.0 <= point[0] < width and 0.0 <= point[1] < height)


def _bgr(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    return rgb[2], rgb[1], rgb[0]


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _dot(canvas: Image, point: FloatArray, word: str, scale: float) -> None:
    centre = _fixed(point).tolist()
    cv2.circle(canvas, centre, round(3.2 * scale * 2**_SHIFT), (32, 38, 46), -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(canvas, centre, round(2.2 * scale * 2**_SHIFT), (255, 255, 255), -1, cv2.LINE_AA, _SHIFT)
    _word(canvas, point + np.array([5.0, -3.0]) * scale, word, (255, 255, 255), 0.36 * scale)


def _dash(canvas: Image, row: float, scale: float) -> None:
    """A dashed line across the picture, where the row is in it."""
    height, width = canvas.shape[:2]
    if 0.0 <= row < height:
        dash = max(6, round(12 * scale))
        for start in range(0, width, 2 * dash):
            ends = (start, round(row)), (start + dash, round(row))
            cv2.line(canvas, *ends, (32, 38, 46), max(3, round(3 * scale)))
            cv2.line(canvas, *ends, (255, 255, 255), max(1, round(scale)))


def _word(canvas: Image, point: FloatArray, word: str, rgb: tuple[int, int, int], size: float) -> None:
    spot = (round(float(point[0])), round(float(point[1])))
    outline = (32, 38, 46) if sum(rgb) > 600 else (255, 255, 255)
    for colour, thick in ((outline, 3), (_bgr(rgb), 1)):
        wide = max(thick, round(thick * size * 1.6))
        cv2.putText(canvas, word, spot, cv2.FONT_HERSHEY_SIMPLEX, size, colour, wide, cv2.LINE_AA)


def _points(pixels: FloatArray) -> str:
    return " ".join(f"{u:.1f},{v:.1f}" for u, v in pixels)


def _line(pixels: FloatArray, rgb: tuple[int, int, int], wide: float, more: str = "") -> str:
    return (
        f'<polyline points="{_points(pixels)}" fill="none" stroke="{_hex(rgb)}" stroke-width="{wide:.1f}" '
        f'stroke-linejoin="round"{more}/>'
    )
