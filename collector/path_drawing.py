"""A future path drawn where it will be driven: into the camera's picture, and from above as SVG.

Both drawings speak one language: a ribbon as wide as the kart, coloured from now to the end of the horizon, its left
border blue and marked L, its right border red and marked R, a dot at every second.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.pinhole import KART_WIDTH_M, Pinhole, path_ribbon, seen_part

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

LEFT_RGB, RIGHT_RGB, PAST_RGB = (41, 121, 255), (255, 23, 68), (134, 142, 150)
# Now, half-way, the end of the horizon.
TIME_RGB = ((255, 241, 0), (255, 145, 0), (213, 0, 249))
KART_FRONT_M, KART_REAR_M = 1.554, 0.510  # bumpers from the rear axle
_STEPS_PER_S = 10
_ABOVE_W, _ABOVE_H = 130.0, 195.0
_SHIFT = 4  # cv2 takes coordinates as whole numbers of 1/16 pixel


def time_rgb(share: float) -> tuple[int, int, int]:
    """Colour of a moment, 0 now to 1 at the end of the horizon."""
    stops = np.linspace(0.0, 1.0, len(TIME_RGB))
    return tuple(round(float(np.interp(share, stops, part))) for part in zip(*TIME_RGB))  # type: ignore[return-value]


def draw_seen(image_bgr: Image, future: ArrayLike, camera: Pinhole) -> Image:
    """The picture with the future path lying on the road, and a dashed line where the model has the horizon.

    Args:
        image_bgr: (H, W, 3); left as it is.
        future: (64, 3) ego poses.
        camera: sized to the picture.
    """
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    scale = width / 480.0
    first, last = seen_part(future, camera)
    left, right = _drawable(path_ribbon(future, camera))
    steps = len(np.asarray(future))
    layer = canvas.copy()
    for index in reversed(range(len(left) - 1)):  # from far to near, so that the near part lies on top
        quad = np.stack([left[index], left[index + 1], right[index + 1], right[index]])
        colour = _bgr(time_rgb((first + index) / max(1, steps - 1)))
        cv2.fillConvexPoly(layer, _fixed(quad), colour, cv2.LINE_AA, _SHIFT)
    canvas = np.asarray(cv2.addWeighted(layer, 0.5, canvas, 0.5, 0.0), np.uint8)
    for border, colour in ((left, LEFT_RGB), (right, RIGHT_RGB)):
        for below, rgb in ((max(3, round(4 * scale)), (255, 255, 255)), (max(1, round(2 * scale)), colour)):
            cv2.polylines(canvas, [_fixed(border)], False, _bgr(rgb), below, cv2.LINE_AA, _SHIFT)
    middle = camera.project(_on_ground(future))
    drawn = None
    for second in range(1, steps // _STEPS_PER_S + 1):
        index = second * _STEPS_PER_S - 1
        if not (first <= index < last and _inside(middle[index], width, height)):
            continue
        # Far seconds lie on one another: a dot needs room to be read.
        if drawn is None or np.hypot(*(middle[index] - drawn)) > 11.0 * scale:
            drawn = middle[index]
            _dot(canvas, drawn, str(second), scale)
    row = camera.horizon_px
    if 0.0 <= row < height:
        dash = max(6, round(12 * scale))
        for start in range(0, width, 2 * dash):
            ends = (start, round(row)), (start + dash, round(row))
            cv2.line(canvas, *ends, (32, 38, 46), max(3, round(3 * scale)))
            cv2.line(canvas, *ends, (255, 255, 255), max(1, round(scale)))
    for border, word, rgb in ((left, "L", LEFT_RGB), (right, "R", RIGHT_RGB)):
        inside = [point for point in border if _inside(point, width, height)]
        if inside:
            outwards = -18.0 if word == "L" else 6.0
            spot = np.clip(inside[0] + (outwards * scale, 0.0), (2, 14 * scale), (width - 14 * scale, height - 4))
            _word(canvas, spot, word, rgb, 0.6 * scale)
    return canvas


def above_svg(history: ArrayLike, future: ArrayLike) -> str:
    """The path from above as an SVG element: the kart looks up, left is left, a grid of 5 m.

    Args:
        history: (16, 3) ego poses. future: (64, 3) ego poses.
    """
    past, path = np.asarray(history, np.float64), np.asarray(future, np.float64)
    everything = np.vstack([past[:, :2], path[:, :2], [[KART_FRONT_M, 0.0], [-KART_REAR_M, 0.0]]])
    low, high = everything.min(axis=0) - 1.2, everything.max(axis=0) + 1.2
    low[1], high[1] = min(low[1], -4.0), max(high[1], 4.0)
    per_m = min(_ABOVE_H / max(high[0] - low[0], 12.0), _ABOVE_W / (high[1] - low[1]))
    middle_x, middle_y = (low + high) / 2.0

    def place(xy: ArrayLike) -> FloatArray:
        points = np.asarray(xy, np.float64)
        u = _ABOVE_W / 2.0 - (points[..., 1] - middle_y) * per_m
        return np.stack([u, _ABOVE_H / 2.0 - (points[..., 0] - middle_x) * per_m], axis=-1)

    parts = [f'<svg class="above" viewBox="0 0 {_ABOVE_W:g} {_ABOVE_H:g}" role="img" '
             'aria-label="the path from above, forward is up">']
    # Lines at whole multiples of 5 m (10 m where those would crowd), forward ones with their distance.
    step_m = 5.0 if per_m > 5.0 else 10.0
    reach_x, reach_y = _ABOVE_H / per_m / 2.0, _ABOVE_W / per_m / 2.0
    for x in np.arange(np.ceil((middle_x - reach_x) / step_m), (middle_x + reach_x) / step_m) * step_m:
        v = place([x, 0.0])[1]
        parts.append(f'<path d="M0 {v:.1f}H{_ABOVE_W:g}" stroke="#e3e7eb"/>'
                     f'<text x="3" y="{v - 2.0:.1f}" fill="#87909a">{x + 0.0:.0f} m</text>')
    for y in np.arange(np.ceil((middle_y - reach_y) / step_m), (middle_y + reach_y) / step_m) * step_m:
        u = place([0.0, y])[0]
        parts.append(f'<path d="M{u:.1f} 0V{_ABOVE_H:g}" stroke="#e3e7eb"/>')
    parts.append(_line(place(past[:, :2]), PAST_RGB, max(1.5, KART_WIDTH_M * per_m), ' opacity="0.35"'))
    whole = np.vstack([np.zeros((1, 3)), path])
    for index in range(0, len(path), 4):
        piece = place(whole[index : index + 5, :2])
        colour = time_rgb((index + 2) / max(1, len(path)))
        parts.append(_line(piece, colour, max(2.0, KART_WIDTH_M * per_m), ' opacity="0.75"'))
    aside = np.stack([-np.sin(whole[:, 2]), np.cos(whole[:, 2])], axis=1) * KART_WIDTH_M / 2.0
    for side, rgb in ((aside, LEFT_RGB), (-aside, RIGHT_RGB)):
        parts.append(_line(place(whole[:, :2] + side), rgb, 1.6))
    half = KART_WIDTH_M / 2.0
    corners = place([[KART_FRONT_M, half], [KART_FRONT_M, -half], [-KART_REAR_M, -half], [-KART_REAR_M, half]])
    parts.append(f'<polygon points="{_points(corners)}" fill="#20262e"/>')
    for second in range(1, len(path) // _STEPS_PER_S + 1):
        spot = place(path[second * _STEPS_PER_S - 1, :2])
        parts.append(f'<circle cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="1.7" fill="#fff" stroke="#20262e"/>')
    for word, side, rgb in (("L", 1.0, LEFT_RGB), ("R", -1.0, RIGHT_RGB)):
        spot = place([0.0, side * half])
        parts.append(f'<text x="{spot[0] - 8.0 * side:.1f}" y="{spot[1] + 3.0:.1f}" text-anchor="middle" '
                     f'font-weight="700" fill="{_hex(rgb)}">{word}</text>')
    return "".join([*parts, "</svg>"])


def _on_ground(future: ArrayLike) -> FloatArray:
    xy = np.asarray(future, np.float64)[:, :2]
    return np.concatenate([xy, np.zeros((len(xy), 1))], axis=1)


def _drawable(pixels: FloatArray) -> FloatArray:
    """Far outside the picture it no longer matters where, but cv2 must not overflow."""
    return np.clip(pixels, -8000.0, 8000.0)


def _fixed(points: FloatArray) -> NDArray[np.int32]:
    return np.round(points * 2**_SHIFT).astype(np.int32)


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


def _word(canvas: Image, point: FloatArray, word: str, rgb: tuple[int, int, int], size: float) -> None:
    spot = (round(float(point[0])), round(float(point[1])))
    outline = (32, 38, 46) if sum(rgb) > 600 else (255, 255, 255)
    for colour, thick in ((outline, 3), (_bgr(rgb), 1)):
        wide = max(thick, round(thick * size * 1.6))
        cv2.putText(canvas, word, spot, cv2.FONT_HERSHEY_SIMPLEX, size, colour, wide, cv2.LINE_AA)


def _points(pixels: FloatArray) -> str:
    return " ".join(f"{u:.1f},{v:.1f}" for u, v in pixels)


def _line(pixels: FloatArray, rgb: tuple[int, int, int], wide: float, more: str = "") -> str:
    return (f'<polyline points="{_points(pixels)}" fill="none" stroke="{_hex(rgb)}" stroke-width="{wide:.1f}" '
            f'stroke-linejoin="round"{more}/>')
