"""The road's geometry: stations, feet, mirrors, the look-alike against its table, random circuits."""

import time
from pathlib import Path

import numpy as np
import pytest

from closed_loop.course import random as course_random
from closed_loop.course.city import CITY_CURVES, CITY_LENGTH_M, CITY_WIDTH_M
from closed_loop.course.course import Course, clearance_m
from closed_loop.course.design import course_file, course_named
from collector.common.errors import MonoError
from collector.geometry.poses import wrap_angle
from collector.geometry.splines import resample


def ring(radius_m: float = 20.0, width_m: float = 3.0) -> Course:
    angle = np.arange(0.0, 2.0 * np.pi, 0.5 / radius_m)[:-1]
    return Course("ring", radius_m * np.stack([np.cos(angle), np.sin(angle)], axis=1), True, width_m, width_m)


def test_a_ring_has_its_length_curvature_and_signed_offsets() -> None:
    course = ring()
    assert course.length_m == pytest.approx(2.0 * np.pi * 20.0, rel=1e-3)
    # The one odd step at the seam is allowed to show.
    assert np.median(course.curvature_1pm) == pytest.approx(0.05, rel=1e-3)
    foot = course.project([[18.0, 0.0], [0.0, 23.0], [-20.0, 0.0]])
    assert foot.lateral_m == pytest.approx([2.0, -3.0, 0.0], abs=0.01)  # inside of a left turn is left
    ahead = (foot.s_m - [0.0, np.pi * 10.0, np.pi * 20.0] + 30.0) % course.length_m - 30.0
    assert ahead == pytest.approx([0.0, 0.0, 0.0], abs=0.1)
    assert foot.yaw_rad[0] == pytest.approx(np.pi / 2.0, abs=0.03)


@pytest.mark.parametrize("name", ["city", "random:3"])
def test_pose_at_and_project_undo_each_other(name: str) -> None:
    course = course_named(name)
    rng = np.random.default_rng(1)
    s, lateral = rng.uniform(0.0, course.length_m, 400), rng.uniform(-2.0, 2.0, 400)
    poses = course.pose_at(s, lateral)
    foot = course.project(poses[:, :2], s)
    assert np.abs(foot.lateral_m - lateral).max() < 0.02
    ahead = (foot.s_m - s + course.length_m / 2.0) % course.length_m - course.length_m / 2.0
    assert np.abs(ahead).max() < 0.2
    assert np.abs(wrap_angle(foot.yaw_rad - poses[:, 2])).max() < 0.06


def test_following_one_point_gives_the_projection() -> None:
    course = course_named("city")
    rng = np.random.default_rng(2)
    s = rng.uniform(0.0, course.length_m, 200)
    poses = course.pose_at(s, rng.uniform(-2.5, 2.5, 200))
    foot = course.project(poses[:, :2], s)
    for k in range(200):
        station, lateral, yaw, curvature = course.follow(poses[k, 0], poses[k, 1], s[k] + 0.4)
        assert station == pytest.approx(foot.s_m[k], abs=1e-9)
        assert lateral == pytest.approx(foot.lateral_m[k], abs=1e-9)
        assert wrap_angle(yaw - foot.yaw_rad[k]) == pytest.approx(0.0, abs=1e-9)
        assert curvature == pytest.approx(foot.curvature_1pm[k], abs=1e-9)


def test_a_hint_keeps_a_kart_on_its_own_stretch() -> None:
    # Two legs of a hairpin three metres apart: the nearest leg of the point is the other one.
    turn = np.linspace(-np.pi / 2.0, np.pi / 2.0, 12)[1:-1]
    out = np.stack([np.arange(0.0, 40.0, 0.5), np.zeros(80)], axis=1)
    bend = np.stack([40.0 + 1.5 * np.cos(turn), 1.5 + 1.5 * np.sin(turn)], axis=1)
    back = np.stack([np.arange(39.5, -0.5, -0.5), np.full(80, 3.0)], axis=1)
    course = Course("hairpin", np.vstack([out, bend, back]), False, 1.0, 1.0)
    point = (10.0, 1.8)
    assert course.project(point).s_m > 50.0
    foot = course.project(point, 10.0)
    assert foot.s_m == pytest.approx(10.0, abs=1e-6) and foot.lateral_m == pytest.approx(1.8)
    assert course.follow(*point, 9.0)[0] == pytest.approx(10.0, abs=1e-6)


def test_an_open_course_ends_at_its_ends() -> None:
    course = Course("line", np.stack([np.arange(0.0, 30.0, 0.5), np.zeros(60)], axis=1), False, 3.0, 3.0)
    assert course.project((50.0, 1.0)).s_m == pytest.approx(29.5)
    assert course.pose_at(99.0)[0] == pytest.approx(29.5)


@pytest.mark.parametrize("name", ["city", "random:7"])
def test_a_mirror_swaps_sides_exactly(name: str) -> None:
    course, mirror = course_named(name), course_named(name + "-mirror")
    assert np.array_equal(mirror.xy, course.xy * [1.0, -1.0])
    assert np.allclose(mirror.curvature_1pm, -course.curvature_1pm, atol=1e-12)
    assert np.array_equal(mirror.width_left_m, course.width_right_m)
    assert mirror.mirrored().name == course.name
    point = course.pose_at(33.0, 1.2)
    assert mirror.project((point[0], -point[1])).lateral_m == pytest.approx(-1.2, abs=0.02)


def test_resampling_keeps_a_circle_round_and_its_map_coordinates_exact() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 60, endpoint=False)
    centre = np.array([89630.0, 43130.0])
    points = centre + 15.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    line = resample(points, 0.5, closed=True)
    assert np.abs(np.linalg.norm(line - centre, axis=1) - 15.0).max() < 1e-4
    steps = np.linalg.norm(np.diff(line, axis=0, append=line[:1]), axis=1)
    assert steps.max() - steps.min() < 1e-3 and steps.mean() == pytest.approx(0.5, rel=0.01)


def test_the_city_look_alike_keeps_to_its_table() -> None:
    course = course_named("city")
    assert course.length_m == pytest.approx(CITY_LENGTH_M, rel=0.01)
    assert 3.8 < 1.0 / np.abs(course.curvature_1pm).max() < 4.2
    assert course.yaw_rad[-1] - course.yaw_rad[0] == pytest.approx(-2.0 * np.pi, abs=0.1)  # clockwise
    gap = np.linalg.norm(course.xy[0] - course.xy[-1])
    assert gap == pytest.approx(np.linalg.norm(course.xy[1] - course.xy[0]), abs=1e-3)
    assert np.abs(np.diff(course.curvature_1pm, append=course.curvature_1pm[:1])).max() < 0.12  # no kinks
    assert clearance_m(course) >= 0.95
    assert course.width_left_m.mean() * 2.0 == pytest.approx(CITY_WIDTH_M, abs=0.35)
    for start, end, turn_deg, radius, _ in CITY_CURVES:
        inside = (course.s_m >= start - 2.5) & (course.s_m <= end + 1.0)
        turned = np.degrees((course.curvature_1pm[inside] * 0.5).sum())
        assert turned == pytest.approx(turn_deg, abs=12.0), f"curve at {start}"
        assert 1.0 / np.abs(course.curvature_1pm[inside]).max() == pytest.approx(radius, rel=0.12), f"curve at {start}"


@pytest.mark.parametrize("seed", list(range(0, 10000, 557)))
def test_random_circuits_are_roads(seed: int) -> None:
    course_random.random_course.cache_clear()
    began = time.process_time()
    course = course_named(f"random:{seed}")
    assert time.process_time() - began < 1.5  # a tenth of a second when alone
    low, high = course_random.RANDOM_LENGTH_M
    assert course.closed and low <= course.length_m <= high
    assert 1.0 / np.abs(course.curvature_1pm).max() >= 3.9
    assert clearance_m(course) >= course_random.VERGE_M
    width = course.width_left_m + course.width_right_m
    assert width.min() >= 5.5 - 1e-9 and width.max() <= 8.0 + 1e-9
    again = course_random.random_course.__wrapped__(seed)
    assert np.array_equal(again.xy, course.xy)


def test_random_circuits_bend_about_as_much_as_the_city() -> None:
    shares, right = [], 0
    for seed in range(5000, 5040):
        course = course_named(f"random:{seed}")
        shares.append((np.abs(course.curvature_1pm) > 0.1).mean())
        right += course.yaw_rad[-1] < course.yaw_rad[0]
    assert 0.3 < np.mean(shares) < 0.5
    assert 8 < right < 32  # both directions


def test_the_mildest_random_circuit_is_always_acceptable() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert any(course_random._draw_circuit("plain", rng, 0.0) is not None for _ in range(4))


@pytest.mark.parametrize("spec", ["cty", "random:x", "random:", "/nowhere/line.csv", "random:-1"])
def test_unknown_courses_are_named_in_a_sentence(spec: str) -> None:
    with pytest.raises(MonoError, match=r"city, random:SEED .*-mirror"):
        course_named(spec)


def test_a_course_that_makes_no_road_is_refused() -> None:
    line = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    with pytest.raises(MonoError, match="width_left_m"):
        Course("thin", line, False, -1.0, 1.0)
    with pytest.raises(MonoError, match="repeats the point"):
        Course("twice", np.repeat(line, 2, axis=0), False, 1.0, 1.0)
    with pytest.raises(MonoError, match="at least 4"):
        Course("short", line[:3], False, 1.0, 1.0)


def test_a_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `course:=` no shell says where that is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "line.csv").touch()
    for spec in ("~/line.csv", "~/line.csv:open"):
        assert course_file(spec) == tmp_path / "line.csv"
