"""What is drawn lies where the pinhole says."""

import time

import cv2
import numpy as np
import pytest

from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.camera import CROSS_LEFT, CROSS_RIGHT, FOUR_CAMERAS, FRONT, FRONT_TELE, Camera
from closed_loop.simulator.ground import LINE_FROM_EDGE_M, draw_look
from closed_loop.simulator.scene import Scene
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego
from finetune.policy import CAMERA_ORDER

HALF_M = 3.204
LINE_Y_M = 43100.013
SEED = 5


@pytest.fixture(scope="module")
def straight() -> Scene:
    # Off the grid of the texture, as any real road: exact ties of rounding would lean to one side.
    line = np.stack([np.arange(0.0, 90.0, 0.5) + 89600.0, np.full(180, LINE_Y_M)], axis=1)
    return Scene(Course("straight", line, False, HALF_M, HALF_M), SEED, props=False)


@pytest.fixture(scope="module")
def city() -> Scene:
    return Scene(course_named("city"), 3)


def test_the_four_cameras_are_those_of_the_model() -> None:
    assert tuple(camera.name for camera in FOUR_CAMERAS) == CAMERA_ORDER


def test_the_front_camera_is_that_of_the_kart() -> None:
    assert FRONT.K[0, 0] == pytest.approx(320.0) and FRONT.K[1, 1] == pytest.approx(320.0)
    assert FRONT.project((10.8, 0.0, 0.7)) == pytest.approx([319.5, 179.5])  # straight ahead at camera height
    u, v = FRONT.project((5.8, 1.0, 0.0))
    assert u == pytest.approx(319.5 - 320.0 / 5.0) and v == pytest.approx(179.5 + 320.0 * 0.7 / 5.0)
    assert np.isnan(FRONT.project((0.0, 0.0, 0.0))).all()


def test_left_camera_sees_left_and_a_lowered_view_raises_the_horizon() -> None:
    assert CROSS_LEFT.project((0.8 + np.cos(np.radians(55.0)), np.sin(np.radians(55.0)), 0.7)) == pytest.approx(
        [319.5, 179.5]
    )
    assert CROSS_RIGHT.project((3.0, -3.0, 0.0))[0] < 640.0
    down = Camera("down", pitch_rad=0.2)
    assert down.horizon_px < FRONT.horizon_px
    assert down.project((5.0, 0.0, 0.0))[1] < FRONT.project((5.0, 0.0, 0.0))[1]


@pytest.mark.parametrize("camera", [*FOUR_CAMERAS, Camera("tilted", yaw_rad=0.3, pitch_rad=-0.1)])
def test_ground_homography_undoes_the_projection(camera: Camera) -> None:
    pixels = np.array([[40.0, 330.0], [320.0, 300.0], [600.0, 355.0]])
    ground = np.column_stack([pixels, np.ones(3)]) @ camera.ground_from_pixel.T
    points = np.column_stack([ground[:, :2] / ground[:, 2:], np.zeros(3)])
    assert camera.project(points) == pytest.approx(pixels, abs=1e-6)


@pytest.mark.parametrize(
    "camera", [FRONT, FRONT_TELE, Camera("tilted", yaw_rad=0.25, pitch_rad=0.12), FRONT.sized(320, 180)]
)
@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_edge_lines_are_drawn_where_the_camera_model_puts_them(straight: Scene, camera: Camera, turn: float) -> None:
    pose = np.array([89620.0, 43100.6, turn])
    image = straight.render(camera, pose).astype(int).sum(axis=2)
    look = draw_look(np.random.default_rng([31, SEED]))
    inset = LINE_FROM_EDGE_M + look.line_width_m / 2.0
    misses, reach = [], []  # in pixels, and in metres on the ground
    for side in (1.0, -1.0):
        for ahead in np.arange(4.0, 18.0, 0.1):
            point = np.array([89620.0 + ahead, LINE_Y_M + side * (HALF_M - inset), 0.0])
            ego = to_ego(point, pose)
            u, v = camera.project((ego[0], ego[1], 0.0))
            if not (8 < u < camera.width_px - 9 and 0 <= v < camera.height_px - 1):
                continue
            # The crossing of the line with the nearest whole row.
            row = round(v)
            ends = [to_ego(point + np.array([d, 0.0, 0.0]), pose) * [1, 1, 0] for d in (-0.4, 0.4)]
            along = camera.project(np.array(ends))
            u += (row - v) * (along[1, 0] - along[0, 0]) / (along[1, 1] - along[0, 1])
            first = round(u) - 8
            if not 0 <= first < camera.width_px - 17:
                continue
            window = image[row, first : first + 17]
            bright = window - np.median(window)
            if bright.max() > 100:  # worn stretches have no line
                weight = np.where(bright > 0.5 * bright.max(), bright, 0)
                misses.append((weight * np.arange(first, first + 17)).sum() / weight.sum() - u)
                reach.append(misses[-1] * camera.optical((ego[0], ego[1], 0.0))[2] / camera.focal_px)
    assert len(misses) >= 5
    assert np.median(np.abs(misses)) < 1.5
    assert np.median(np.abs(reach)) < 0.025 and np.abs(np.median(reach)) < 0.025  # half a texture pixel


def test_kart_beside_the_line_sees_the_near_edge_lower_and_nearer(straight: Scene) -> None:
    # One metre to the left, the left edge is closer: it crosses the picture's left border further down.
    image = straight.render(FRONT, np.array([89620.0, 43101.0, 0.0])).astype(int)
    grassy = (image[:, :, 1] - image[:, :, 0] > 12) & (np.arange(360)[:, None] > 185)
    left, right = grassy[:, 2].nonzero()[0], grassy[:, 637].nonzero()[0]
    assert len(left) and len(right) and left.max() > right.max() + 10


def test_sky_above_and_ground_below_the_horizon(city: Scene) -> None:
    for camera in FOUR_CAMERAS:
        image = city.render(camera, city.course.pose_at(20.0)).astype(int)
        assert (image[5, :, 2] >= image[5, :, 1]).mean() > 0.7  # blue or grey, not grass
        assert image.shape == (360, 640, 3) and image.std() > 10.0


def test_far_ground_does_not_flicker(city: Scene) -> None:
    # A sub-pixel step must not change far rows much: an aliased texture would sparkle there.
    pose = city.course.pose_at(2.0)
    step = pose + 0.01 * np.array([np.cos(pose[2]), np.sin(pose[2]), 0.0])
    one, two = (city.render(FRONT, p).astype(int)[183:215] for p in (pose, step))
    assert np.abs(one - two).mean() < 2.5


def test_pictures_depend_on_seed_and_pose_alone(city: Scene) -> None:
    again = Scene(course_named("city"), 3)
    other = Scene(course_named("city"), 4)
    pose = city.course.pose_at(75.0, 0.5)
    first = city.render(FRONT, pose)
    city.render(FRONT, city.course.pose_at(200.0))
    assert np.array_equal(first, city.render(FRONT, pose))
    assert np.array_equal(first, again.render(FRONT, pose))
    assert (first != other.render(FRONT, pose)).mean() > 0.5


def test_a_moved_map_gives_the_same_picture(city: Scene) -> None:
    shifted = city.course.shifted((3000.0, 0.0))
    moved = Scene(shifted, 3)
    difference = moved.render(FRONT, shifted.pose_at(40.0)).astype(int) - city.render(FRONT, city.course.pose_at(40.0))
    assert np.abs(difference).mean() < 0.5


@pytest.mark.parametrize(("name", "seed"), [("city", 3), ("city-mirror", 8), ("random:21", 1)])
def test_nothing_stands_on_the_road(name: str, seed: int) -> None:
    scene = Scene(course_named(name), seed)
    xy = scene.props.xy
    assert len(xy) > 20
    foot = scene.course.project(xy)
    edge = np.where(
        foot.lateral_m > 0,
        scene.course.at(foot.s_m, scene.course.width_left_m),
        scene.course.at(foot.s_m, scene.course.width_right_m),
    )
    assert (np.abs(foot.lateral_m) - edge).min() > 0.4


def test_an_upright_thing_stands_on_the_ground_and_has_its_height(city: Scene) -> None:
    whole = city.props
    index = int(np.flatnonzero((whole.height_m > 2.0) & np.isnan(whole.heading_rad))[0])
    pose = np.array([whole.xy[index, 0] - 9.0, whole.xy[index, 1], 0.0])
    before = np.zeros((360, 640, 3), np.uint8)
    image = before.copy()
    whole.draw(image, FRONT, (pose[0], pose[1], 0.0), 8.1, 8.3)  # only what stands 8.2 m from the lens
    changed = (image != before).any(axis=2)
    foot, top = FRONT.project((9.0, 0.0, 0.0)), FRONT.project((9.0, 0.0, whole.height_m[index]))
    rows, columns = changed.nonzero()
    assert abs(rows.max() - foot[1]) <= 2 and abs(columns.mean() - foot[0]) < 12
    assert abs(rows.min() - max(0.0, top[1])) < 0.2 * (foot[1] - max(0.0, top[1]))


def test_memory_of_a_large_course_is_bounded() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 2600, endpoint=False)
    large = Course("large", 200.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1), True, 4.0, 4.0)
    scene = Scene(large, 1)
    assert scene.ground.px_m > 0.05
    assert sum(level.nbytes for level in scene.ground.levels) < 70e6
    image = scene.render(FRONT, large.pose_at(0.0)).astype(int)
    assert abs(image[330, 320, 1] - image[330, 320, 0]) < 25  # asphalt in front, not grass


def test_at_least_thirty_frames_a_second_on_one_core(city: Scene) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        city.render(FRONT, city.course.pose_at(0.0))
        began = time.process_time()
        for k in range(40):
            city.render(FRONT, city.course.pose_at(9.0 * k))
        rate = 40.0 / (time.process_time() - began)
    finally:
        cv2.setNumThreads(threads)
    assert rate >= 30.0


@pytest.mark.parametrize("bad", [{"width_px": 4}, {"hfov_rad": 3.2}, {"z_m": 0.0}])
def test_impossible_cameras_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(MonoError, match="camera"):
        Camera("bad", **bad)
