"""A told drive as a film: the front picture with its planned path, what was asked and thought, and a map beside it.

The world is rendered anew from the poses that the drive left; nothing of it was kept while it drove.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from closed_loop.course.course import Course
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.scene import Scene
from closed_loop.simulator.world import World
from collector.common.files import PART
from collector.geometry.path_drawing import LEFT_RGB, RIGHT_RGB, TIME_RGB, draw_seen
from collector.geometry.poses import FloatArray, to_ego, to_map
from collector.vehicle.model import KART

Picture = NDArray[np.uint8]
FILM_FPS = 5.0  # a picture per plan
_FRONT_PX, _MAP_PX, _TEXT_PX = (640, 360), 360, 96
_MAP_M = 40.0  # a side of the map's window
_INK, _PAPER, _ROAD, _TRACK = (32, 38, 46), (255, 255, 255), (225, 229, 233), (150, 158, 166)


def write_film(path: Path, drive: Mapping[str, NDArray[Any]], told: Sequence[tuple[float, str]], world: World) -> bool:
    """A WebM of a drive's table (:func:`closed_loop.comparison.runs.drive_table`); False where OpenCV has no encoder.

    ``told`` are the instructions, and from which second of the drive each holds.
    """
    part = path.with_name(f"{path.stem}{PART}{path.suffix}")
    size = (_FRONT_PX[0] + _MAP_PX, _FRONT_PX[1] + _TEXT_PX)
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"VP80"), FILM_FPS, size)
    try:
        if not writer.isOpened():
            return False
        for picture in film_pictures(drive, told, world.course, world.scene):
            writer.write(picture)
    finally:
        writer.release()
    part.replace(path)
    return True


def film_pictures(
    drive: Mapping[str, NDArray[Any]], told: Sequence[tuple[float, str]], course: Course, scene: Scene
) -> Iterator[Picture]:
    """The film's pictures (456, 1000, 3), BGR, one per plan."""
    camera = replace(FRONT, width_px=_FRONT_PX[0], height_px=_FRONT_PX[1])
    edges = [course.pose_at(course.s_m, side) for side in (course.width_left_m, -course.width_right_m)]
    for stamp_s, plan, text in zip(drive["plan_stamp_s"], drive["plan_poses"], drive["plan_reasoning"], strict=True):
        # Where the kart really was: by the rules e2e the driver only believes to know.
        row = int(np.searchsorted(drive["t_s"], stamp_s - 1e-6))
        pose = drive["poses"][min(row, len(drive["poses"]) - 1)]
        seen = draw_seen(scene.render(camera, pose)[:, :, ::-1], plan, camera)
        above = _map(edges, drive["poses"][: row + 1], pose, to_map(plan.astype(np.float64), pose), course.closed)
        asked = next((words for at_s, words in reversed(told) if at_s <= stamp_s), "")
        yield np.vstack([np.hstack([seen, above]), _texts(f"{stamp_s:5.1f} s", asked, str(text))])


def _map(edges: Sequence[FloatArray], track: FloatArray, pose: FloatArray, plan: FloatArray, closed: bool) -> Picture:
    """Around the kart, which drives upwards."""
    canvas = np.full((_MAP_PX, _MAP_PX, 3), _PAPER, np.uint8)
    per_m = _MAP_PX / _MAP_M

    def place(points: FloatArray) -> NDArray[np.int32]:
        ahead, left = np.moveaxis(to_ego(points, pose)[..., :2], -1, 0)
        pixels = np.stack([0.5 * _MAP_PX - left * per_m, 0.7 * _MAP_PX - ahead * per_m], axis=-1)
        return np.clip(np.round(pixels), -30_000, 30_000).astype(np.int32)

    left, right = (place(edge) for edge in edges)
    count = len(left)
    for index in range(count if closed else count - 1):
        after = (index + 1) % count
        cv2.fillConvexPoly(canvas, np.stack([left[index], left[after], right[after], right[index]]), _ROAD)
    for line, rgb in ((left, LEFT_RGB), (right, RIGHT_RGB)):
        cv2.polylines(canvas, [line], closed, rgb[::-1], 1, cv2.LINE_AA)
    cv2.polylines(canvas, [place(track)], False, _TRACK, 2, cv2.LINE_AA)
    cv2.polylines(canvas, [place(np.vstack([pose, plan]))], False, TIME_RGB[-1][::-1], 2, cv2.LINE_AA)
    half = 0.5 * KART.width_m
    corners = [
        (KART.front_m, half, 0.0),
        (KART.front_m, -half, 0.0),
        (-KART.rear_m, -half, 0.0),
        (-KART.rear_m, half, 0.0),
    ]
    cv2.fillConvexPoly(canvas, place(to_map(np.array(corners), pose)), _INK, cv2.LINE_AA)
    return canvas


def _texts(time: str, asked: str, thought: str) -> Picture:
    """What was asked, and what is thought; letters that no font at hand has are boxes."""
    strip = Image.new("RGB", (_FRONT_PX[0] + _MAP_PX, _TEXT_PX), _PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((10, 6), f"{time}   asked: {asked or '-'}", fill=RIGHT_RGB if asked else _INK, font=_font(20))
    lines = textwrap.wrap(thought, 95 if thought.isascii() else 48)[:2]
    pen.text((10, 38), "\n".join(lines), fill=_INK, font=_font(18), spacing=6)
    return np.asarray(strip)[:, :, ::-1]


def _font(size_px: int) -> Any:  # noqa: ANN401 - of Pillow, of two kinds
    """A font with Japanese letters where matplotlib finds one, else a plain one."""
    try:
        from matplotlib import font_manager

        from collector.common.plotting import families

        return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties(family=families()[-1:])), size_px)
    except (ImportError, OSError):
        return ImageFont.load_default(size_px)
