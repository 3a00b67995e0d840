"""Lateral deviation against drives whose answer is known by construction."""

from __future__ import annotations

import json

import numpy as np
import pytest

from closed_loop.comparison.deviation import curve_at, measure, reference_curves, result_text, summarise
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from collector.common.errors import MonoError
from collector.geometry.curvature import CurveSegment
from collector.geometry.poses import mirror_poses


def lap(course: Course, lateral_m: float | np.ndarray, laps: float = 1.0, start_m: float = 0.0) -> np.ndarray:
    """Poses every 0.2 m beside the line."""
    s = start_m + np.arange(0.0, laps * course.length_m + 1.0, 0.2)
    return course.pose_at(s, lateral_m if np.isscalar(lateral_m) else np.interp(s, *lateral_m))


def times(poses: np.ndarray) -> np.ndarray:
    return 0.05 * np.arange(len(poses))


def oval(half_width_m: float = 3.5) -> Course:
    """Two straights of 40 m and two left half circles of 10 m radius."""
    bend = np.linspace(-np.pi / 2, np.pi / 2, 63)[1:-1]
    along = np.arange(0.0, 40.01, 0.5)
    right = np.stack([40.0 + 10.0 * np.cos(bend), 10.0 + 10.0 * np.sin(bend)], axis=1)
    xy = np.vstack(
        [
            np.stack([along, np.zeros_like(along)], axis=1),
            right,
            np.stack([40.0 - along, np.full_like(along, 20.0)], axis=1),
            [40.0, 20.0] - right,
        ]
    )
    return Course("oval", xy, True, np.full(len(xy), half_width_m), np.full(len(xy), half_width_m))


def test_a_known_offset_is_measured_with_its_sign_everywhere() -> None:
    course = course_named("city")
    for offset in (0.4, -0.25):
        poses = lap(course, offset)
        row = summarise([measure(times(poses), poses, course)])
        for part in ("on_curves", "all"):
            assert row[part]["mean_signed_m"] == pytest.approx(offset, abs=0.03)
            assert row[part]["rms_m"] == pytest.approx(abs(offset), abs=0.03)
            assert row[part]["p95_m"] <= row[part]["max_m"] <= abs(offset) + 0.1
        assert row["laps_finished"] == 1
        assert row["off_track_events"] == 0


def test_the_mirrored_drive_has_the_mirrored_table() -> None:
    course = course_named("city")
    wave = np.arange(0.0, 400.0, 20.0), 0.5 * np.sin(np.arange(20.0))
    poses = lap(course, wave)
    one = summarise([measure(times(poses), poses, course)])
    other = summarise([measure(times(poses), mirror_poses(poses), course.mirrored())])
    assert len(one["curves"]) == len(other["curves"]) >= 12
    for left, right in zip(one["curves"], other["curves"], strict=True):
        assert left["direction"] != right["direction"]
        assert left["mean_signed_m"] == pytest.approx(-right["mean_signed_m"], abs=1e-9)
        assert left["max_m"] == pytest.approx(right["max_m"], abs=1e-9)


def test_curves_are_the_labellers_with_a_margin_of_two_metres() -> None:
    course = oval()
    curves = reference_curves(course)
    assert [curve.direction for curve in curves] == ["left", "left"]
    assert curves[0].turn_rad == pytest.approx(np.pi, abs=0.1)
    first = curves[0]
    at = [first.start_m - 2.1, first.start_m - 1.9, first.end_m + 1.9, first.end_m + 2.1]
    assert curve_at(at, curves, course.length_m, True, 2.0).tolist() == [0, 1, 1, 0]
    # Curve 2 runs to the join or past it: stations just after the start belong to it.
    assert curve_at([0.5], curves, course.length_m, True, 2.0).tolist() == [2]
    poses = lap(course, (np.array([0.0, 30.0, 41.0, 50.0, 60.0, 120.0]), np.array([0.0, 0.0, 0.6, 1.2, 0.0, 0.0])))
    row = summarise([measure(times(poses), poses, course)])
    assert row["on_curves"]["max_m"] == pytest.approx(1.2, abs=0.05)
    assert row["curves"][0]["min_radius_m"] == pytest.approx(10.0, rel=0.05)
    assert row["curves"][1]["max_m"] < 0.1


def test_overlapping_margins_belong_to_the_nearer_curve() -> None:
    curves = (CurveSegment(10.0, 20.0, "left", 1.0, 0.2), CurveSegment(23.0, 30.0, "right", -1.0, 0.2))
    assert curve_at([21.0, 22.0, 25.0], curves, 100.0, True, 2.0).tolist() == [1, 2, 2]


def test_off_track_is_judged_by_the_karts_corners_not_its_axle() -> None:
    course = oval(half_width_m=3.5)
    inside = lap(course, 2.75)  # on the inside of a bend the kart's flank is nearest: 2.75 + 0.65 < 3.5
    outside = lap(course, -2.80)  # a nose 1.55 m before the axle swings over the outer edge
    straight_only = lap(course, -2.80, laps=0.18, start_m=4.0)
    assert not measure(times(straight_only), straight_only, course).events
    assert not measure(times(inside), inside, course).events
    deviation = measure(times(outside), outside, course)
    assert len(deviation.events) == 2
    assert {event.side for event in deviation.events} == {"right"}
    assert {event.curve for event in deviation.events} == {1, 2}
    wide = lap(course, 2.95)
    assert measure(times(wide), wide, course).off_track.all()


def test_a_brief_touch_of_the_edge_is_one_event_and_a_return_makes_a_second() -> None:
    course = oval()
    s = np.array([0.0, 10.0, 12.0, 14.0, 30.0, 32.0, 34.0, 200.0])
    poses = lap(course, (s, np.array([0.0, 0.0, 3.2, 0.0, 0.0, -3.2, 0.0, 0.0])))
    deviation = measure(times(poses), poses, course)
    assert [event.side for event in deviation.events] == ["left", "right"]
    assert summarise([deviation])["events"][0]["station_m"] == pytest.approx(11.8, abs=0.6)


def test_a_lap_with_a_recovery_is_not_finished_and_the_jump_is_not_driving() -> None:
    course = oval()
    first = lap(course, (np.array([0.0, 40.0, 60.0]), np.array([0.0, 0.0, 4.0])), laps=0.45)
    second = lap(course, 0.0, laps=1.2, start_m=70.0)
    poses = np.vstack([first, second])
    t_s = times(poses)
    deviation = measure(t_s, poses, course, resets_s=[t_s[len(first)]], laps_asked=2)
    assert len(deviation.events) == 1
    assert (deviation.laps_asked, deviation.laps_finished, len(deviation.resets_s)) == (2, 1, 1)
    row = summarise([deviation])
    assert row["laps_driven"] == pytest.approx(0.45 + 1.2, abs=0.02)
    assert row["all"]["distance_m"] == pytest.approx(0.2 * (len(poses) - 2), rel=0.05)
    assert row["all"]["max_m"] == pytest.approx(np.interp(0.45 * course.length_m, [40.0, 60.0], [0.0, 4.0]), abs=0.1)
    whole = lap(course, 0.0, laps=2.0)
    assert measure(times(whole), whole, course, laps_asked=2).laps_finished == 2
    short = lap(course, 0.0, laps=1.9)
    assert measure(times(short), short, course, laps_asked=2).laps_finished == 1


def test_close_stretches_do_not_swap_and_another_reference_is_named() -> None:
    road = oval()
    inner = Course("raceline", road.pose_at(road.s_m, 0.8)[:, :2], True, np.full(len(road.xy), 3.0), np.ones(1))
    poses = lap(road, 0.0)
    row = summarise([measure(times(poses), poses, road, inner)])
    assert (row["reference"], row["road"]) == ("raceline", "oval")
    assert row["all"]["mean_signed_m"] == pytest.approx(-0.8, abs=0.02)
    # A kart 10.5 m inside the oval is nearer to the far straight, and still on its own.
    drift = lap(road, (np.array([0.0, 10.0, 30.0, 40.0]), np.array([0.0, 0.0, 10.5, 10.5])), laps=0.25)
    lost = measure(times(drift), drift, road)
    assert lost.lateral_m[-1] == pytest.approx(10.5, abs=0.2)


def test_standing_still_does_not_dilute_and_json_is_plain() -> None:
    course = oval()
    poses = lap(course, 0.5, laps=0.5)
    waiting = np.vstack([np.repeat(course.pose_at([0.0], 0.0), 500, axis=0), poses])
    row = summarise([measure(times(waiting), waiting, course)])
    assert row["all"]["rms_m"] == pytest.approx(0.5, abs=0.03)
    assert json.loads(json.dumps(row))["curves"][0]["number"] == 1
    still = measure([0.0, 1.0], course.pose_at([1.0, 1.0]), course)
    assert summarise([still])["on_curves"]["max_m"] is None


def test_bad_drives_are_named() -> None:
    course = oval()
    with pytest.raises(MonoError, match="at least 2"):
        measure([0.0], np.zeros((1, 3)), course)
    with pytest.raises(MonoError, match="not finite"):
        measure([0.0, 1.0], np.full((2, 3), np.nan), course)
    with pytest.raises(MonoError, match="one course"):
        summarise([])


@pytest.mark.parametrize(
    ("off_track", "finished", "words"),
    [
        (0, 3, "stays on the road"),
        (0, 1, "stays on the road, does not finish"),
        (12, 0, "leaves the road 12 times"),
        (2, 3, "leaves the road twice"),
        (1, 2, "leaves the road once"),
    ],
)
def test_the_result_says_what_was_counted(off_track: int, finished: int, words: str) -> None:
    assert result_text({"off_track_events": off_track, "laps_asked": 3, "laps_finished": finished}) == words
