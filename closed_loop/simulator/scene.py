"""What the cameras see: the ground, the sky with hills, and upright things beside the road.

The ground is an exact perspective warp, upright things are polygons through the same pinhole, drawn from far
to near. One seed gives one scene, one scene and one pose give one picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from closed_loop.course.course import Course
from closed_loop.simulator.camera import Band, Camera
from closed_loop.simulator.ground import Ground, Image, draw_look, paint_ground
from closed_loop.simulator.props import Props, place_props
from collector.geometry.poses import FloatArray

NEAREST_M = 0.3
FARTHEST_M = 70.0
HAZE_FROM_M, HAZE_FULL_M = 30.0, 220.0


class Scene:
    """A course to look at, in its own map; the seed is the day: colours, light, wear, what stands beside the road.

    Without ``props`` nothing stands upright (faster, plainer).
    """

    def __init__(self, course: Course, seed: int, props: bool = True) -> None:
        self.course, self.seed = course, seed
        self.ground: Ground = paint_ground(course, seed)
        rng = np.random.default_rng([57, seed])
        self.light = draw_look(np.random.default_rng([31, seed])).light
        self.props: Props = place_props(course, self.ground, rng, self.light, wanted=props)
        blue = rng.uniform(0.0, 1.0)  # from overcast to clear
        overcast, clear = np.array([188.0, 194.0, 200.0]), np.array([88.0, 140.0, 208.0])
        self._zenith = (overcast * (1.0 - blue) + clear * blue) * self.light
        self._haze = np.array([206.0, 212.0, 216.0]) * self.light
        self._hill = (0.55 * np.array([86.0, 112.0, 92.0]) * self.light + 0.45 * self._haze).clip(0, 255)
        self._hill_waves = [
            (int(k), rng.uniform(0.2, 1.0) * 0.05 / (1.0 + 0.35 * k), rng.uniform(0.0, 6.283))
            for k in rng.choice(np.arange(1, 24), 7, replace=False)
        ]
        self._views: dict[Camera, _View] = {}

    def render(self, camera: Camera, pose: ArrayLike) -> Image:
        """The picture of a camera on a kart at ``pose`` (3,) in the map: (height, width, 3) uint8 RGB."""
        view = self._views.get(camera)
        if view is None:
            view = self._views[camera] = _View(camera, self.ground, self._zenith.clip(0, 255), self._haze.clip(0, 255))
        x, y, yaw = (float(v) for v in np.asarray(pose, np.float64))
        image = np.empty((camera.height_px, camera.width_px, 3), np.uint8)
        image[: view.first_row] = view.sky
        self._draw_hills(image, camera, yaw)
        view.draw_ground(image, self.ground, x, y, yaw)
        self.props.draw(image, camera, (x, y, yaw), NEAREST_M, FARTHEST_M)
        return image

    def _draw_hills(self, image: Image, camera: Camera, yaw_rad: float) -> None:
        """A skyline that depends on the compass direction alone, as distant things do."""
        columns = np.linspace(0, camera.width_px - 1, 33)
        slope = (columns - camera.K[0, 2]) / camera.focal_px
        azimuth = yaw_rad + camera.yaw_rad - np.arctan(slope)
        height = 0.035 + sum(swing * np.sin(k * azimuth + phase) for k, swing, phase in self._hill_waves)
        row = camera.horizon_px - camera.focal_px * np.maximum(height, 0.004) * np.sqrt(1.0 + slope**2)
        skyline = np.stack([columns, row], axis=1)
        base = camera.horizon_px + 1.0
        outline = np.vstack([skyline, [[columns[-1], base], [columns[0], base]]])
        if outline[:, 1].max() >= 0 and outline[:, 1].min() < camera.height_px:
            r, g, b = (float(v) for v in self._hill)
            cv2.fillPoly(image, [np.round(outline * 16).astype(np.int32)], (r, g, b), cv2.LINE_AA, 4)


class _View:
    """What of a camera's picture does not depend on the pose, prepared once."""

    def __init__(self, camera: Camera, ground: Ground, zenith: FloatArray, haze: FloatArray) -> None:
        rows = np.arange(camera.height_px)
        self.first_row = min(camera.height_px, max(0, int(np.floor(camera.horizon_px)) + 1))
        up = np.clip((camera.horizon_px - rows[: self.first_row]) / camera.focal_px, 0.0, 1.0)[:, None]
        ramp = haze + (zenith - haze) * np.minimum(1.0, 1.6 * up)
        rows_of_sky = np.broadcast_to(ramp[:, None, :], (self.first_row, camera.width_px, 3))
        self.sky = np.ascontiguousarray(rows_of_sky, np.uint8)
        self.bands: list[tuple[Band, FloatArray, FloatArray]] = []  # with pixel_from_map and ground_from_band
        for band in camera.bands(ground.px_m, len(ground.levels)):
            # Row j of the enlarged band shows the image row top + (j + 0.5) / n - 0.5.
            share = 1.0 / band.rows_per_row
            first = band.top + 0.5 / band.rows_per_row - 0.5
            spread = np.array([[1.0, 0.0, 0.0], [0.0, share, first], [0.0, 0.0, 1.0]])
            self.bands.append((band, ground.pixel_from_map(band.level), camera.ground_from_pixel @ spread))
        fog = np.clip((camera.distance_of_row(rows) - HAZE_FROM_M) / (HAZE_FULL_M - HAZE_FROM_M), 0.0, 0.92)
        fog = fog[self.first_row :]
        self.fog = fog[fog > 0.0][:, None, None]  # the farthest rows, which come first
        self.haze = haze

    def draw_ground(self, image: Image, ground: Ground, x: float, y: float, yaw: float) -> None:
        cos, sin = np.cos(yaw), np.sin(yaw)
        place = np.array([[cos, -sin, x - ground.origin_xy[0]], [sin, cos, y - ground.origin_xy[1]], [0.0, 0.0, 1.0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for band, pixel_from_map, ground_from_band in self.bands:
            rows, shown = band.rows_per_row, image[band.top : band.bottom]
            size = (shown.shape[1], len(shown) * rows)
            drawn = shown if rows == 1 else np.empty((size[1], size[0], 3), np.uint8)
            homography, texture = pixel_from_map @ place @ ground_from_band, ground.levels[band.level]
            cv2.warpPerspective(texture, homography, size, drawn, flags, cv2.BORDER_CONSTANT, ground.beyond_rgb)
            if rows > 1:
                cv2.resize(drawn, (size[0], len(shown)), dst=shown, interpolation=cv2.INTER_AREA)
        far = image[self.first_row : self.first_row + len(self.fog)]
        far[:] = far * (1.0 - self.fog) + self.haze * self.fog
