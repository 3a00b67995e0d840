"""The curvature labeller against circles, clothoids and hairpins of known shape."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.geometry.curvature import CurveThresholds, curvature_profile, find_curves, label_path
from collector.geometry.poses import to_map


def line(*pieces: tuple[float, float], step_m: float = 0.25) -> np.ndarray:
    """A line from (length_m, curvature_1pm) pieces, exact arcs, in the ego frame."""
    kappa = np.concatenate([np.full(round(length / step_m), k) for length, k in pieces])
    yaw = np.concatenate([[0.0], np.cumsum(kappa * step_m)])
    middle = (yaw[:-1] + yaw[1:]) / 2.0
    chord = step_m * np.sinc(kappa * step_m / 2.0 / np.pi)
    steps = np.stack([np.cos(middle), np.sin(middle)], axis=1) * chord[:, None]
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def random_line(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    curvatures = rng.choice([0.0, 0.03, 0.06, 0.12, 0.25], 6) * rng.choice([-1, 1], 6)
    return line(*zip(rng.uniform(1.0, 9.0, 6), curvatures, strict=True))


@pytest.mark.parametrize("radius_m", [4.0, 8.0, 15.0, 24.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_circle_has_the_curvature_of_its_radius(radius_m: float, sign: float) -> None:
    label = label_path(line((14.0, sign / radius_m)))
    assert label.label == label.direction == ("left" if sign > 0 else "right")
    assert label.entry_m == 0.0
    assert label.max_abs_curvature_1pm == pytest.approx(1.0 / radius_m, rel=0.01)
    assert label.turn_rad == pytest.approx(sign * 14.0 / radius_m, rel=0.02)


def test_wider_than_the_threshold_is_straight() -> None:
    label = label_path(line((20.0, 1 / 40.0)))
    assert (label.label, label.entry_m, label.curves) == ("straight", None, ())
    assert label.turn_rad == pytest.approx(0.5, rel=0.02)


def test_entry_is_where_the_curve_begins() -> None:
    for straight_m in (3.0, 5.0, 9.0):
        label = label_path(line((straight_m, 0.0), (8.0, 0.2)))
        assert label.entry_m == pytest.approx(straight_m, abs=1.2)


def test_s_bend_names_its_first_direction_and_mild_ends_do_not_count() -> None:
    label = label_path(line((6.0, 0.15), (2.0, 0.0), (6.0, -0.15)))
    assert (label.label, label.direction, len(label.curves)) == ("s", "left", 2)
    assert label.turn_rad == pytest.approx(0.9, rel=0.1) and label.curves[1].turn_rad == pytest.approx(-0.9, rel=0.1)
    assert label_path(line((0.75, 0.15), (12.0, 0.0))).label == "straight"


def test_a_short_path_has_no_direction() -> None:
    assert label_path(line((1.5, 0.5))).label == "straight"
    assert label_path(np.zeros((31, 2))).label == "straight"
    assert label_path(np.zeros((0, 2))).label == "straight"


@pytest.mark.parametrize("seed", range(20))
def test_mirror_swaps_left_and_right_exactly(seed: int) -> None:
    xy = random_line(seed)
    here, there = label_path(xy), label_path(xy * [1.0, -1.0])
    swap = {"left": "right", "right": "left", "straight": "straight", "s": "s"}
    assert there.label == swap[here.label] and there.direction == swap[here.direction]
    assert (there.entry_m, there.turn_rad) == (here.entry_m, -here.turn_rad)
    assert there.max_abs_curvature_1pm == here.max_abs_curvature_1pm
    assert [c.start_m for c in there.curves] == [c.start_m for c in here.curves]


@pytest.mark.parametrize("seed", range(20))
def test_moving_and_turning_the_map_changes_nothing(seed: int) -> None:
    xy = random_line(seed)
    rng = np.random.default_rng(seed + 100)
    pose = np.array([rng.uniform(-1e5, 1e5), rng.uniform(-1e5, 1e5), rng.uniform(-np.pi, np.pi)])
    moved = to_map(np.column_stack([xy, np.zeros(len(xy))]), pose)[:, :2]
    s_m, kappa = curvature_profile(xy)
    s_moved, kappa_moved = curvature_profile(moved)
    assert np.allclose(s_m, s_moved, atol=1e-9) and np.allclose(kappa, kappa_moved, atol=1e-9)
    here, there = label_path(xy), label_path(moved)
    assert here.label == there.label and here.turn_rad == pytest.approx(there.turn_rad, abs=1e-9)


def closed_course(shift: int = 0) -> np.ndarray:
    """A rounded square of side 20 m with corners of radius 5 m, driven to the left."""
    xy = line(*[(20.0, 0.0), (7.5, np.pi / 2 / 7.5)] * 4)[:-1]
    return np.roll(xy, -shift, axis=0)


@pytest.mark.parametrize("shift", [0, 40, 95, 100, 300])
def test_closed_course_has_four_corners_wherever_it_begins(shift: int) -> None:
    s_m, kappa = curvature_profile(closed_course(shift), closed=True)
    curves = find_curves(s_m, kappa, closed=True)
    assert [c.direction for c in curves] == ["left"] * 4
    assert [c.turn_rad for c in curves] == pytest.approx([np.pi / 2] * 4, rel=0.02)
    length_m = s_m[-1] + s_m[1]
    assert length_m == pytest.approx(110.0, abs=0.5)
    assert all(0.0 <= c.start_m < length_m and c.start_m < c.end_m for c in curves)
    assert all(a.end_m < b.start_m for a, b in itertools.pairwise(curves))


def test_sparse_points_are_joined_smoothly() -> None:
    """Racelines come with points three metres apart; their corners must not fall to pieces."""
    sparse = closed_course()[::12]
    s_m, kappa = curvature_profile(sparse, closed=True)
    curves = find_curves(s_m, kappa, closed=True)
    assert len(curves) == 4 and [c.turn_rad for c in curves] == pytest.approx([np.pi / 2] * 4, rel=0.1)


def test_repeated_points_and_a_closing_point_are_harmless() -> None:
    course = closed_course()
    doubled = np.repeat(np.concatenate([course, course[:1]]), 2, axis=0)
    once, twice = curvature_profile(course, closed=True), curvature_profile(doubled, closed=True)
    assert np.allclose(once[1], twice[1])


def test_one_close_pair_is_one_curve() -> None:
    apart = line((6.0, 0.15), (6.0, 0.0), (6.0, 0.15))
    near = line((6.0, 0.15), (1.5, 0.0), (6.0, 0.15))
    assert len(label_path(apart).curves) == 2 and len(label_path(near).curves) == 1


def test_bad_lines_and_thresholds_say_so() -> None:
    with pytest.raises(MonoError, match="non-finite"):
        label_path([[0.0, 0.0], [np.nan, 1.0]])
    with pytest.raises(MonoError, match="shape"):
        curvature_profile(np.zeros((4, 3)))
    with pytest.raises(MonoError, match="smooth_m"):
        CurveThresholds(smooth_m=0.0)
