"""A lap out of a drawn or driven line: lead-ins, overlaps, several rounds, ends that do or do not meet."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.course.course import Course
from closed_loop.course.joint import Lap
from closed_loop.course.lap import lap_of
from closed_loop.simulator.expert import ExpertConfig
from collector.common.errors import MonoError
from collector.geometry.poses import wrap_angle
from collector.geometry.splines import resample
from tests.helpers.rollouts import drive

REACH_M = 3.0


def oval(length_m: float, spacing_m: float, first_m: float = 0.0, aside_m: float = 0.0) -> np.ndarray:
    """Points along an oval of 30 and 20 m; ``aside_m`` is how far outside the line has moved at its end."""
    angle = np.linspace(0.0, 2.0 * np.pi, 4001)
    ring = np.stack([30.0 * np.cos(angle), 20.0 * np.sin(angle)], axis=1)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    at = np.arange(first_m, first_m + length_m, spacing_m)
    turn = np.interp(at % along[-1], along, angle)
    grown = aside_m * (at - first_m) / length_m
    return np.stack([(30.0 + grown) * np.cos(turn), (20.0 + grown) * np.sin(turn)], axis=1)


LAP_M = 158.65  # of the oval


def course_of(lap: Lap) -> Course:
    return Course("lap", resample(lap.table[:, :2], 0.5, lap.closed), lap.closed, 3.0, 3.0)


def lead_in(to: np.ndarray, ahead: np.ndarray, length_m: float) -> np.ndarray:
    """A gentle bend from the right that ends a step before ``to``, in its direction."""
    back_m = np.arange(length_m, 1.0, -2.0)[:, None]
    right = np.array([ahead[1], -ahead[0]])
    return to - back_m * ahead + right * back_m**2 / 60.0


def check_once_round(course: Course, length_m: float = LAP_M) -> None:
    assert course.closed and course.length_m == pytest.approx(length_m, rel=0.04)
    turn = float((course.curvature_1pm * np.gradient(course.s_m)).sum())
    assert abs(turn) == pytest.approx(2.0 * np.pi, abs=0.15)
    assert np.abs(course.curvature_1pm).max() < 0.25  # the oval's own is 0.075


@settings(deadline=None, max_examples=40)
@given(
    spacing_m=st.floats(0.5, 4.0),
    overlap_m=st.floats(0.0, 12.0),
    aside_m=st.floats(-2.0, 2.0),
    first_m=st.floats(0.0, LAP_M),
    lead_in_m=st.sampled_from([0.0, 20.0, 45.0]),
)
def test_a_lap_that_ends_near_its_start_is_closed_without_a_kink(
    spacing_m: float, overlap_m: float, aside_m: float, first_m: float, lead_in_m: float
) -> None:
    lap = lap_of(recorded(spacing_m, overlap_m, aside_m, first_m, lead_in_m), REACH_M)
    check_once_round(course_of(lap), LAP_M + np.pi * aside_m)  # half as far outside as its end
    assert bool(lead_in_m) == any("lead in" in word for word in lap.said)


def recorded(spacing_m: float, overlap_m: float, aside_m: float, first_m: float, lead_in_m: float) -> np.ndarray:
    """A lap and some more of it, with a way from the garage before it."""
    line = oval(LAP_M + overlap_m, spacing_m, first_m, aside_m)
    if not lead_in_m:
        return line
    ahead = (line[1] - line[0]) / np.linalg.norm(line[1] - line[0])
    return np.vstack([lead_in(line[0], ahead, lead_in_m), line])


@pytest.mark.parametrize("lead_in_m", [0.0, 20.0, 45.0])
@pytest.mark.parametrize("spacing_m", [0.1, 0.5, 1.0, 1.96, 2.6, 3.3, 4.0])
def test_the_same_on_a_grid(spacing_m: float, lead_in_m: float) -> None:
    for overlap_m, aside_m, first_m in product((0.0, 1.0, 6.0, 12.0), (-2.0, 0.5, 2.0), (0.0, 100.0)):
        lap = lap_of(recorded(spacing_m, overlap_m, aside_m, first_m, lead_in_m), REACH_M)
        check_once_round(course_of(lap), LAP_M + np.pi * aside_m)
        assert bool(lead_in_m) == any("lead in" in word for word in lap.said)


@pytest.mark.parametrize("spacing_m", [0.1, 0.5, 1.96, 4.0])
@pytest.mark.parametrize("noise_m", [0.02, 0.05])
def test_noise_of_centimetres_is_not_magnified_where_the_ends_meet(spacing_m: float, noise_m: float) -> None:
    for overlap_m, aside_m, lead_in_m in product((0.0, 6.0), (-2.0, 0.0, 2.0), (0.0, 20.0)):
        line = recorded(spacing_m, overlap_m, aside_m, 40.0, lead_in_m)
        course = course_of(lap_of(line + np.random.default_rng(7).normal(0.0, noise_m, line.shape), REACH_M))
        once = wrap_angle(np.roll(course.yaw_rad, -1) - course.yaw_rad).sum()
        assert course.closed and abs(once) == pytest.approx(2.0 * np.pi)  # no loop, and no stretch twice
        at_join = np.minimum(course.s_m, course.length_m - course.s_m) < 20.0
        bend = np.abs(course.curvature_1pm)
        assert bend[at_join].max() < max(0.3, 1.6 * bend[~at_join].max())


def test_ends_that_meet_in_a_kink_are_closed_only_when_a_person_says_so() -> None:
    def turn(first: float, last: float, middle: tuple[float, float]) -> np.ndarray:
        heading = np.arange(first, last, 0.1)
        return np.array(middle) + 10.0 * np.stack([np.sin(heading), -np.cos(heading)], axis=1)

    start = np.stack([np.arange(0.0, 30.0), np.zeros(30)], axis=1)
    back = np.stack([np.arange(29.0, 4.0, -1.0), np.full(25, 20.0)], axis=1)
    into_start = np.array([-2.79, 2.34]) + np.linspace(0.0, 1.0, 5)[:, None] * (2.79, -2.34)  # 40 degrees across
    corners = np.vstack([start, turn(0.0, np.pi, (30.0, 10.0)), back, turn(np.pi, 5.5, (3.64, 10.0)), into_start])
    drop = resample(corners, 0.5, closed=False)[:-1]
    with pytest.raises(MonoError, match=r"meet in a kink near \(0\.0, 0\.0\)") as caught:
        lap_of(drop, REACH_M)
    assert "with closed or with open" in caught.value.do
    assert lap_of(drop, REACH_M, closed=True).closed and not lap_of(drop, REACH_M, closed=False).closed


def test_the_expert_stays_on_a_lap_whose_end_ran_past_its_start_beside_it() -> None:
    lap = lap_of(oval(LAP_M + 2.8, 2.6, aside_m=1.7), REACH_M)
    course = course_of(lap)
    check_once_round(course)
    assert any("1.7 m beside" in word for word in lap.said)
    done = drive(course, ExpertConfig(), config=RolloutConfig(laps=1.2))
    assert done.finished and not done.events and np.abs(done.lateral_m).max() < 0.3


def test_a_way_out_behind_the_lap_is_left_out_and_said() -> None:
    line = oval(LAP_M, 1.0)
    way_out = line[0] + np.stack([np.linspace(1.0, 25.0, 20), np.linspace(2.0, 30.0, 20)], axis=1)
    lap = lap_of(np.vstack([line, way_out]), REACH_M)
    check_once_round(course_of(lap))
    assert any("left out" in word for word in lap.said)


def test_of_several_rounds_one_is_taken_and_another_can_be_named() -> None:
    line = oval(3.3 * LAP_M, 1.0, aside_m=2.5)
    lap = lap_of(line, REACH_M)
    check_once_round(course_of(lap))
    assert "lap 1 of 3 is taken" in lap.said[0]
    third = lap_of(line, REACH_M, wanted=3)
    check_once_round(course_of(third), LAP_M * 1.09)
    assert np.abs(third.table[:, 0]).max() > np.abs(lap.table[:, 0]).max() + 1.0
    with pytest.raises(MonoError, match="no lap 4 of 3"):
        lap_of(line, REACH_M, wanted=4)


def test_loops_of_different_lengths_are_not_chosen_between() -> None:
    small = oval(LAP_M, 1.0)[::2] * 0.3
    small += oval(LAP_M, 1.0)[0] - small[0]  # touches the big one in its first point
    line = np.vstack([small, oval(LAP_M + 1.0, 1.0)])
    with pytest.raises(MonoError, match=r"loops of 4\d, 15\d m") as caught:
        lap_of(line, REACH_M)
    assert "lap=N" in caught.value.do
    check_once_round(course_of(lap_of(line, REACH_M, wanted=2)))


def test_ends_beside_one_another_that_point_opposite_ways_stay_open() -> None:
    out = np.stack([np.arange(0.0, 60.0, 3.0), np.zeros(20)], axis=1)
    back = np.stack([np.arange(60.0, 0.0, -3.0), np.full(20, 3.0)], axis=1)
    lap = lap_of(np.vstack([out, back]), REACH_M)
    assert not lap.closed and "FILE:closed" in lap.said[0]
    assert lap_of(np.vstack([out, back]), REACH_M, closed=True).closed


def test_a_person_decides_between_open_and_closed() -> None:
    line = oval(LAP_M - 30.0, 1.0)
    assert not lap_of(line, REACH_M).closed
    joined = lap_of(line, REACH_M, closed=True)
    assert joined.closed and "are joined" in joined.said[0]
    assert not lap_of(oval(LAP_M, 1.0), REACH_M, closed=False).closed


def test_standing_still_with_noise_is_not_a_round() -> None:
    rng = np.random.default_rng(3)
    standing = oval(LAP_M, 1.0)[0] + rng.normal(0.0, 0.1, (400, 2))
    check_once_round(course_of(lap_of(np.vstack([standing, oval(LAP_M, 1.0)[1:]]), REACH_M)), LAP_M)


def test_widths_follow_a_line_that_is_bent_to_close() -> None:
    line = oval(LAP_M + 2.0, 1.0, aside_m=1.5)
    lap = lap_of(np.hstack([line, np.full((len(line), 2), 4.0)]), 4.0)
    assert lap.table[:, 2:].sum(axis=1) == pytest.approx(8.0)
    assert abs(lap.table[-1, 2] - 4.0) == pytest.approx(1.5, abs=0.1) and lap.table[0, 2] == 4.0


def ring(count: int = 200, radius_m: float = 30.0) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return radius_m * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize(
    "broken",
    [
        np.vstack([ring()[:60], ring()[50:60], ring()[60:]]),  # rows copied twice
        np.vstack([ring()[:50], ring()[60:50:-1], ring()[60:]]),  # a stretch the wrong way round
        np.vstack([ring()[:100], ring()[98::-1]]),  # out and back
        np.stack([ring(200, 30.0), ring(200, 30.1)], axis=1).reshape(-1, 2)[np.r_[0:50, 60, 51:400]],  # out of order
        np.concatenate([np.stack([ring(40, 30.0), ring(40, 33.0)], axis=1)]).reshape(-1, 2),  # two edges, row by row
    ],
)
@pytest.mark.parametrize("closed", [None, True, False])
def test_a_line_that_turns_back_on_itself_is_refused(broken: np.ndarray, closed: bool | None) -> None:
    with pytest.raises(MonoError, match=r"turns back on itself at \(.*order in which they are driven"):
        lap_of(broken, 3.0, closed)


def test_steps_back_of_noise_are_left_out() -> None:
    noise = np.random.default_rng(3).normal(0.0, 0.03, (2000, 2))
    lap = lap_of(ring(2000) + noise, 3.0)
    way_m = np.linalg.norm(np.diff(lap.table, axis=0), axis=1).sum()
    assert lap.closed and "points that step back are left out" in lap.said[0]
    assert way_m < np.linalg.norm(np.diff(ring(2000) + noise, axis=0), axis=1).sum()
    assert np.abs(np.hypot(*lap.table.T) - 30.0).max() < 0.15
    assert not lap_of(ring(), 3.0).said
