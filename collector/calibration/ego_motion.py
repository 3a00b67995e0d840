"""How the camera moved between two frames, seen from the frames alone: its rotation and its direction of travel.

Features are tracked from one frame to the next; rotation and direction are those that put every track on its epipolar
line (five unknowns, the distance travelled cannot be seen). Axes are the optical ones: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.calibration.model import Intrinsics
from collector.geometry.poses import FloatArray
from collector.ros.images import RawFrame, as_bgr, check_picture, undecodable

# Wider frames are scaled down: tracking at 640 px costs milliseconds and is fine to 0.1 degrees.
TRACKED_WIDTH_PX = 640
# Many weak features beat few strong ones: strong ones crowd on kerbs and the skyline, and the pitch leans (measured).
_FEATURES, _QUALITY, _SPACING_PX = 800, 0.0005, 6
_LEAST_TRACKS = 25
_ROUND_TRIP_PX = 0.5
_ITERATIONS = 14
_RESIDUAL_PX = (8.0, 1.0)  # scale of the robust weight: wide at first, in order to find the way, then narrow
_INLIER_PX = 2.0


@dataclass(frozen=True)
class Motion:
    """What two frames tell about the motion between them."""

    rotation: FloatArray  # (3,) rotation vector of the scene in optical axes, radians; +y when the camera turns left
    travel: FloatArray  # (3,) unit direction of travel in optical axes at the second frame
    tracks: int  # features that agree with it
    before_px: FloatArray  # (N, 2) all features in the first frame, pixels of the tracked size
    after_px: FloatArray  # and in the second

    @property
    def pitch_rad(self) -> float:
        """How far the optical axis looks down from the direction of travel."""
        return float(np.arctan2(-self.travel[1], self.travel[2]))


def gray_image(frame: RawFrame) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A frame as gray (H, W), at most ``TRACKED_WIDTH_PX`` wide, and the (width, height) it was recorded in.

    Raises:
        FrameError: it cannot be decoded.
    """
    import cv2

    gray: Any
    if frame.pixels is not None:
        image = as_bgr(frame.pixels, frame.encoding)
        gray = image if image.ndim == 2 else cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    else:
        check_picture(frame.jpeg or b"")
        data = np.frombuffer(frame.jpeg or b"", np.uint8)
        try:
            gray = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
        except cv2.error:
            gray = None
        if gray is None:
            raise undecodable(frame)
    height, width = gray.shape
    if width > TRACKED_WIDTH_PX:
        size = (TRACKED_WIDTH_PX, max(1, round(height * TRACKED_WIDTH_PX / width)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return np.asarray(gray, np.uint8), (width, height)


def motion_between(before: NDArray[np.uint8], after: NDArray[np.uint8], intrinsics: Intrinsics) -> Motion | None:
    """The motion between two gray frames of one size; None where too few features can be followed.

    ``intrinsics`` are those of the recording, for any size of the same shape.
    """
    before_px, after_px = track_features(before, after)
    if len(before_px) < _LEAST_TRACKS:
        return None
    camera = intrinsics.sized(before.shape[1], before.shape[0])
    found = fit_motion(rays_of(before_px, camera), rays_of(after_px, camera), camera.fx_px)
    return None if found is None else Motion(*found, before_px, after_px)


def track_features(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    """Corners of ``before`` and where they are in ``after``, (N, 2) pixels each.

    Pyramidal Lucas-Kanade there and back; what does not return to its start is dropped.
    """
    import cv2

    corners = cv2.goodFeaturesToTrack(before, _FEATURES, _QUALITY, _SPACING_PX, blockSize=5)
    if corners is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02)
    how: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 4, "criteria": until}
    start: Any = None  # no guess of where the features went
    moved, there, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, start, **how)
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, start, **how)
    trip_px = np.linalg.norm(corners - back, axis=2)[:, 0]
    good = (there[:, 0] > 0) & (again[:, 0] > 0) & (trip_px < _ROUND_TRIP_PX)
    return corners[good, 0].astype(np.float64), moved[good, 0].astype(np.float64)


def rays_of(points_px: FloatArray, camera: Intrinsics) -> FloatArray:
    """(N, 3) rays (x, y, 1) in optical axes through pixels (N, 2), the lens distortion removed."""
    import cv2

    flat = cv2.undistortPoints(points_px[:, None], camera.matrix, np.array(camera.distortion or (0.0,) * 4))[:, 0]
    return np.column_stack([flat, np.ones(len(flat))])


def fit_motion(before: FloatArray, after: FloatArray, focal_px: float) -> tuple[FloatArray, FloatArray, int] | None:
    """Rotation, direction of travel and number of agreeing tracks from rays (N, 3) of the same features.

    Gauss-Newton on the Sampson distance (Hartley and Zisserman, Multiple View Geometry, 11.4.3) with Geman-McClure
    weights. It starts from straight ahead without rotation, which a kart's motion within 0.1 s is close enough to.
    """
    import cv2

    turn, ahead = np.eye(3), np.array([0.0, 0.0, 1.0])
    scale, narrow = _RESIDUAL_PX
    residual = np.full(len(before), np.inf)
    for _ in range(_ITERATIONS):
        turned = before @ turn.T
        x, y, z = ahead
        essential = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) @ turn
        lines, lines_back = before @ essential.T, after @ essential
        squares = lines[:, :2] ** 2 + lines_back[:, :2] ** 2
        to_px = focal_px / np.sqrt(squares.sum(axis=1) + 1e-18)
        residual = np.sum(after * lines, axis=1) * to_px
        weight = 1.0 / (1.0 + (residual / scale) ** 2) ** 2
        aside = np.linalg.svd(ahead[None])[2][1:]  # the two directions in which `ahead` can turn
        slopes = np.hstack([np.cross(turned, after) @ aside.T, np.cross(turned, np.cross(after, ahead))])
        slopes *= to_px[:, None]
        normal = slopes.T @ (slopes * weight[:, None])
        try:
            step = -np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(5), slopes.T @ (residual * weight))
        except np.linalg.LinAlgError:
            return None
        ahead = ahead + aside.T @ step[:2]
        ahead /= np.linalg.norm(ahead)
        turn = np.asarray(cv2.Rodrigues(step[2:])[0], np.float64) @ turn
        scale = max(narrow, 0.6 * scale)
    tracks = int(np.count_nonzero(np.abs(residual) < _INLIER_PX))
    if not np.isfinite(residual).all() or 2 * tracks < len(before):
        return None
    rotation = np.asarray(cv2.Rodrigues(turn)[0], np.float64)[:, 0]
    return rotation, ahead if ahead[2] > 0.0 else -ahead, tracks
