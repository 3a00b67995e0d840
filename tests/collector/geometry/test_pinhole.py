"""The one projection: against OpenCV, the renderer and a recorded CameraInfo; and what is drawn through it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from closed_loop.course.course import Course
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.scene import Scene
from collector.bags.reader import open_bag, typestore
from collector.calibration.intrinsics import camera_block, cameras_of, read_intrinsics
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.schema import load_manifest
from collector.geometry.path_drawing import LEFT_RGB, RIGHT_RGB, AboveView, above_svg, draw_seen, ground_from_above
from collector.geometry.pinhole import Pinhole, path_ribbon
from collector.ros.topics import CAMERA_INFO, CAMERA_JPEG, ODOMETRY
from tests.helpers.synthetic_bag import START_NS, _header, drive_course, write_bag

AHEAD = np.array([[2.5, 0.4, 0.0], [6.0, -2.0, 0.0], [15.0, 3.0, 0.5], [40.0, 0.0, 1.2]])
STRAIGHT = np.stack([0.5 * np.arange(1, 65), np.zeros(64), np.zeros(64)], axis=1)
K_1080 = (960.0, 0.0, 970.5, 0.0, 958.0, 530.5, 0.0, 0.0, 1.0)


def bend(direction: float, radius_m: float = 10.0) -> np.ndarray:
    yaw = 0.4 / radius_m * np.arange(1, 65)
    return np.stack([radius_m * np.sin(yaw), direction * radius_m * (1 - np.cos(yaw)), direction * yaw], axis=1)


def info_cdr(stamp_ns: int, matrix: tuple[float, ...], distortion: tuple[float, ...] = (0.0,) * 5) -> bytes:
    types = typestore().types
    message = types[CAMERA_INFO.type](
        header=_header(stamp_ns, "camera_optical_link"),
        height=1080,
        width=1920,
        distortion_model="plumb_bob",
        d=np.array(distortion),
        k=np.array(matrix),
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )
    return bytes(typestore().serialize_cdr(message, CAMERA_INFO.type))


def test_the_ribbon_lies_where_a_pinhole_sees_the_ground() -> None:
    left, right = path_ribbon(STRAIGHT, FRONT, half_width_m=0.5)
    centre_u, centre_v = FRONT.K[0, 2], FRONT.K[1, 2]
    assert np.allclose(left[:, 0] + right[:, 0], 2.0 * centre_u)
    assert (left[:, 0] < centre_u).all()
    # A point 10 m ahead of the rear axle is 9.2 m from the camera, 0.7 m below it.
    at = STRAIGHT[:, 0].tolist().index(10.0) - (64 - len(left))
    assert left[at, 1] == pytest.approx(centre_v + FRONT.focal_px * 0.7 / 9.2)
    assert left[at, 0] == pytest.approx(centre_u - FRONT.focal_px * 0.5 / 9.2)
    seen = path_ribbon(bend(1.0), FRONT, half_width_m=0.0)[0]
    assert (np.diff(seen[:, 0]) < 0.0).all()  # a left bend moves left in the picture
    assert path_ribbon(STRAIGHT * [-1.0, 1.0, 1.0], FRONT).shape == (2, 0, 2)


@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 0.0), (0.14, 0.0), (-0.2, 0.3)])
def test_it_is_the_projection_of_opencv(pitch: float, yaw: float) -> None:
    camera = Pinhole(
        "c", x_m=0.3, y_m=0.1, z_m=1.1, pitch_rad=pitch, yaw_rad=yaw, width_px=1920, height_px=1080, matrix=K_1080
    )
    rotation = camera.rotation.T
    shift = -rotation @ np.array([0.3, 0.1, 1.1])
    expected, _ = cv2.projectPoints(AHEAD, cv2.Rodrigues(rotation)[0], shift, camera.K, None)
    assert camera.project(AHEAD) == pytest.approx(expected[:, 0])
    # Looking down raises what is seen in the picture, looking left moves it to the right.
    assert camera.optical((100.0, 0.1, 1.1))[1] == pytest.approx(-np.sin(pitch) * np.cos(yaw) * 99.7)
    assert (camera.optical((100.0, 0.1, 1.1))[0] > 0.0) == (yaw > 0.0)


def test_a_recorded_matrix_is_the_same_camera_as_the_renderers_field_of_view() -> None:
    tilted = replace(FRONT, pitch_rad=0.1)
    recorded = Pinhole("front", pitch_rad=0.1, matrix=tuple(FRONT.K.ravel()))
    assert recorded.project(AHEAD) == pytest.approx(tilted.project(AHEAD))
    assert recorded.horizon_px == pytest.approx(tilted.horizon_px)
    for size in ((320, 180), (1920, 1080)):  # a scaled picture
        assert recorded.sized(*size).project(AHEAD) == pytest.approx(tilted.sized(*size).project(AHEAD))


@pytest.mark.parametrize("matrix", [(1.0,) * 8, (0.0,) * 9, (float("nan"),) * 9])
def test_a_matrix_no_pinhole_has_is_refused(matrix: tuple[float, ...]) -> None:
    with pytest.raises(MonoError, match="focal lengths"):
        Pinhole("c", matrix=matrix)


def test_the_camera_of_a_bag_reaches_the_manifest_and_comes_back(tmp_path: Path) -> None:
    drive = drive_course()
    info = [
        (CAMERA_INFO.name, START_NS + n * 50_000_000, data)
        for n, data in enumerate((b"torn", info_cdr(START_NS, (0.0,) * 9), info_cdr(START_NS, K_1080)))
    ]
    with_info = write_bag(tmp_path / "with", drive, topics=(CAMERA_JPEG, ODOMETRY, CAMERA_INFO), extra=info)
    without = write_bag(tmp_path / "without", drive.moved(0.0, 50.0, 0.0), topics=(CAMERA_JPEG, ODOMETRY))
    with open_bag(without) as bag:
        assert read_intrinsics(bag, CAMERA_JPEG.name) is None
    build_dataset(
        BuildConfig((with_info, without), tmp_path / "dataset", stride=20, val_fraction=0.0), show_progress=False
    )
    manifest = load_manifest(tmp_path / "dataset")
    block = manifest["camera"]
    assert block["intrinsics"]["without"] is None
    known = block["intrinsics"]["with"]
    assert (known["width"], known["height"], known["frame_id"]) == (1920, 1080, "camera_optical_link")
    assert tuple(known["K"]) == K_1080 and known["topic"] == CAMERA_INFO.name
    assert block["mount"]["z_m"] == 0.7 and len(block["assumed"]) == 2
    cameras = cameras_of(manifest)
    # The stored frames are smaller than what the CameraInfo speaks of.
    assert cameras.of("with", 960, 540).K[0, 0] == pytest.approx(480.0)
    assert cameras.of("without", 640, 360).K[0, 0] == pytest.approx(320.0)
    assert "without" in cameras.sources["lens"] and "recorded" in cameras.sources["lens"]


def test_calibration_and_the_command_line_override_what_is_assumed() -> None:
    block = camera_block({"b": {"width": 1920, "height": 1080, "K": list(K_1080), "D": [0.1, 0.0]}})
    calibrated = cameras_of({"camera": block, "calibration": {"pitch_rad": -0.2}})
    assert calibrated.of("b", 1920, 1080).pitch_rad == -0.2 and calibrated.sources["pitch"] == "calibration"
    assert "distortion" in calibrated.sources["lens"]
    told = cameras_of({"camera": block, "calibration": {"pitch_rad": -0.2}}, pitch_deg=8.0, hfov_deg=60.0, height_m=1.5)
    camera = told.of("b", 640, 360)
    assert (camera.pitch_rad, camera.z_m) == (pytest.approx(np.radians(8.0)), 1.5)
    assert camera.K[0, 0] == pytest.approx(320.0 / np.tan(np.radians(30.0)))
    with pytest.raises(MonoError, match="height"):
        cameras_of({}, height_m=-1.0)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"camera": "front"},
        {"camera": {"intrinsics": 5, "mount": []}, "calibration": {"pitch_rad": "steep"}},
        {"camera": {"intrinsics": {"b": {"width": "x", "K": []}}, "mount": {"z_m": -4.0}}, "calibration": 3},
        {"camera": {"intrinsics": {"b": {"width": 10**9, "height": 100, "K": [1, 2]}}}},
    ],
)
def test_a_manifest_that_says_nothing_sound_gives_the_assumed_camera(manifest: dict) -> None:
    camera = cameras_of(manifest).of("b", 640, 360)
    assert camera.project(AHEAD) == pytest.approx(FRONT.project(AHEAD))


def columns_of(image: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Columns of the pixels in about this colour."""
    return np.nonzero(np.abs(image.astype(int) - rgb[::-1]).max(axis=2) < 40)[1]


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_left_is_drawn_left_and_a_swapped_sign_goes_the_other_way(direction: float) -> None:
    grey = np.full((360, 640, 3), 128, np.uint8)
    drawn = draw_seen(grey, bend(direction), FRONT)
    left, right = columns_of(drawn, LEFT_RGB), columns_of(drawn, RIGHT_RGB)
    assert len(left) > 100 and len(right) > 100 and left.mean() < right.mean()
    changed = np.nonzero((drawn != 128).any(axis=2) & (np.abs(np.arange(360) - 180) > 8)[:, None])[1]
    assert (changed.mean() < 300.0) == (direction > 0.0)
    assert (grey == 128).all()
    svg = above_svg(np.zeros((16, 3)), bend(direction))
    ends = [float(part.split('"')[0].split()[-1].split(",")[0]) for part in svg.split('<polyline points="')[1:]]
    kart = AboveView.around(np.zeros((16, 3)), bend(direction)).place((0.0, 0.0))[0]
    assert all((end < kart) == (direction > 0.0) for end in ends[1:-2])


def test_a_path_out_of_view_is_no_failure() -> None:
    grey = np.full((36, 64, 3), 128, np.uint8)
    for future in (STRAIGHT * [-1.0, 1.0, 1.0], np.zeros((64, 3)), STRAIGHT * 1e7, STRAIGHT * 1e300, bend(1.0, 1.5)):
        assert draw_seen(grey, future, FRONT.sized(64, 36)).shape == grey.shape
        svg = above_svg(future[:16], future)
        assert svg.count("<svg") == 1 and len(svg) < 8000 and "nan" not in svg


def edge_columns(flat: np.ndarray) -> np.ndarray:
    """Where the grass left of the road ends, row by row: the asphalt is grey, the grass green."""
    green = flat[..., 1].astype(int) - flat[..., 2] > 12
    found = []
    for row in range(120, 260):
        grass = np.nonzero(green[row, :130])[0]
        if len(grass):
            found.append(grass.max())
    return np.array(found)


def test_laid_flat_a_straight_road_has_parallel_edges_with_the_right_pitch_only() -> None:
    line = np.stack([np.arange(0.0, 90.0, 0.5), np.full(180, 0.013)], axis=1)
    scene = Scene(Course("straight", line, False, 3.2, 3.2), 5, props=False)
    tilted = replace(FRONT, pitch_rad=float(np.radians(4.0)))
    image = np.ascontiguousarray(scene.render(tilted, (20.0, 0.0, 0.0))[..., ::-1])
    view = AboveView.around(np.zeros((16, 3)), STRAIGHT[:40] * [0.8, 1.0, 1.0])
    edge = edge_columns(ground_from_above(image, tilted, view))
    expected = 2.0 * view.place((0.0, 3.2))[0]
    assert len(edge) > 60 and np.abs(np.median(edge) - expected) < 6.0
    assert np.ptp(np.percentile(edge, (5, 95))) < 8.0
    wrong = edge_columns(ground_from_above(image, replace(tilted, pitch_rad=0.0), view))
    assert len(wrong) < 60 or np.ptp(np.percentile(wrong, (5, 95))) > 16.0
