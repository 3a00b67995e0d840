"""Which lanes make the course: loops that a person names, loops that are chosen, and maps without any."""

import time

import numpy as np
import pytest

from closed_loop.course.crossings import crossing, self_crossing
from closed_loop.course.lanes import Lane, centreline
from closed_loop.course.loops import followers, main_loop, named_loop
from collector.common.errors import MonoError
from collector.geometry.splines import integrate


def lane(name: str, middle: np.ndarray, half_m: float = 2.0) -> Lane:
    step = np.gradient(np.asarray(middle, np.float64), axis=0)
    left = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.linalg.norm(step, axis=1)[:, None]
    return Lane(name, middle + half_m * left, middle - half_m * left)


def arc(name: str, radius_m: float, first: float, last: float, centre: tuple[float, float] = (0.0, 0.0)) -> Lane:
    """A lane between two angles about a centre, its bounds exactly radial."""
    angle = np.linspace(first, last, 31)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner, outer = np.array(centre) + (radius_m - 2.0) * way, np.array(centre) + (radius_m + 2.0) * way
    return Lane(name, inner, outer) if last > first else Lane(name, outer, inner)


def ring(prefix: str, radius_m: float) -> list[Lane]:
    quarter = np.pi / 2.0
    return [arc(f"{prefix}{k}", radius_m, k * quarter, (k + 1) * quarter) for k in range(4)]


def eight() -> list[Lane]:
    """Two circles driven in opposite directions, touching in the origin, where one lane crosses into the other."""
    return [
        arc("a", 20.0, np.pi, 2.0 * np.pi, (20.0, 0.0)),
        arc("b", 20.0, 0.0, np.pi, (20.0, 0.0)),
        arc("c", 20.0, 0.0, -np.pi, (-20.0, 0.0)),
        arc("d", 20.0, -np.pi, -2.0 * np.pi, (-20.0, 0.0)),
    ]


def test_the_longest_loop_is_taken_and_the_others_are_said() -> None:
    loop = main_loop(ring("in", 20.0) + ring("out", 50.0))
    assert [each.name for each in loop.lanes] == ["out0", "out1", "out2", "out3"] and loop.closed
    assert loop.length_m == pytest.approx(2.0 * np.pi * 50.0, rel=0.01)
    assert "1 other loops close too, of 126 m" in loop.said[0]
    assert main_loop(ring("in", 20.0)).said == []


def test_a_person_names_the_lanes_or_some_of_them() -> None:
    lanes = ring("in", 20.0) + ring("out", 50.0)
    assert [each.name for each in named_loop(lanes, ["in2"]).lanes] == ["in2", "in3", "in0", "in1"]
    assert named_loop(lanes, ["in1", "in3"]).length_m == pytest.approx(2.0 * np.pi * 20.0, rel=0.01)
    with pytest.raises(MonoError, match="no way from lane in0 to lane out0"):
        named_loop(lanes, ["in0", "out0"])
    with pytest.raises(MonoError, match="no usable lane 'in9'"):
        named_loop(lanes, ["in9"])
    with pytest.raises(MonoError, match="named twice"):
        named_loop(lanes, ["in0", "in0"])
    row = named_loop(lanes[:3], ["in0", "in2"])
    assert (
        not row.closed and [each.name for each in row.lanes] == ["in0", "in1", "in2"] and "no way back" in row.said[0]
    )


def test_lanes_that_cross_are_told_from_lanes_beside_one_another() -> None:
    straight = np.linspace(0.0, 1.0, 21)[:, None]

    def between(name: str, a: tuple[float, float], b: tuple[float, float]) -> Lane:
        return lane(name, np.array(a) + straight * (np.array(b) - np.array(a)))

    crossed = [between("up", (0, 0), (40, 40)), between("down", (0, 40), (40, 0))]
    middle_a, middle_b = crossed[0].middle(8), crossed[1].middle(8)
    met = crossing(middle_a, middle_b)
    assert met is not None and met == pytest.approx([20.0, 20.0], abs=0.1)
    assert crossing(middle_a, middle_a + np.array([0.0, 10.0])) is None


def test_lines_that_cross_themselves_are_found_whatever_their_length() -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 20_000, endpoint=False)
    figure = 2000.0 * np.stack([np.sin(angle), np.sin(2.0 * angle)], axis=1)
    began = time.process_time()
    met = self_crossing(figure, True, 2.0)
    assert met is not None and np.linalg.norm(met) < 1.0
    assert self_crossing(2000.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1), True, 2.0) is None
    assert time.process_time() - began < 5.0


def test_lanes_without_a_loop_make_the_longest_row() -> None:
    quarter = np.pi / 2.0
    spur = arc("spur", 20.0, quarter, 1.2 * quarter)
    loop = main_loop([*ring("q", 20.0)[:3], spur])
    assert not loop.closed and [each.name for each in loop.lanes] == ["q0", "q1", "q2"]
    assert "1 others are not" in loop.said[0]


def test_a_city_of_lanes_ends_in_time_with_a_loop_or_a_sentence() -> None:
    """A grid of crossroads has more loops than can be counted."""
    size, lanes = 12, []
    turns = np.linspace(0.0, 1.0, 9)[:, None]
    for x in range(size):
        for y in range(size):
            for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
                if 0 <= x + dx < size and 0 <= y + dy < size:
                    a, b = np.array([x, y]) * 50.0, np.array([x + dx, y + dy]) * 50.0
                    bounds = a + turns * (b - a)
                    lanes.append(Lane(f"{x}-{y}-{dx}-{dy}", bounds + 2.0, bounds - 2.0))
    began = time.process_time()
    loop = main_loop(lanes)
    assert loop.closed and any("not all loops were looked at" in word for word in loop.said)
    assert time.process_time() - began < 20.0


def test_followers_are_found_by_place() -> None:
    lanes = ring("q", 20.0)
    assert followers(lanes) == [[1], [2], [3], [0]]


def test_an_eight_is_a_loop_where_there_is_no_other() -> None:
    lanes = eight()
    assert len(followers(lanes)) == 4
    loop = main_loop(lanes)
    assert loop.closed


def test_a_circuit_that_is_one_lane_has_its_middle_between_bounds_of_different_lengths() -> None:
    # A horseshoe: 300 degrees to the left, then to the right, with a hairpin at either end. At the far hairpin equal
    # shares of the bounds lie far from one another.
    bends = [(60.0, 300.0), (10.0, 180.0), (-40.0, 300.0), (10.0, 180.0)]
    ways_m = [abs(radius_m) * np.radians(degrees) for radius_m, degrees in bends]
    bend_1pm = np.concatenate([np.full(800, 1.0 / radius_m) for radius_m, _ in bends])
    middle = integrate(bend_1pm, np.concatenate([np.full(800, way_m / 800) for way_m in ways_m]))[:, :2]
    whole = lane("whole", middle, 6.0)
    joint = 0.5 * (whole.left[[0]] + whole.left[[-1]]), 0.5 * (whole.right[[0]] + whole.right[[-1]])
    whole = Lane(
        "whole", *(np.vstack([at, side[1:-1], at]) for at, side in zip(joint, (whole.left, whole.right), strict=True))
    )
    line, left_m, right_m = centreline([whole], closed=True)
    assert np.abs(np.linalg.norm(line[:, None] - middle[None], axis=2).min(axis=1)).max() < 0.5
    assert left_m == pytest.approx(6.0, abs=0.3) and right_m == pytest.approx(6.0, abs=0.3)


def test_bounds_that_do_not_run_beside_one_another_have_no_middle() -> None:
    along = np.stack([np.linspace(0.0, 80.0, 81), np.zeros(81)], axis=1)
    back = np.vstack([along, along[-2::-1]])  # both bounds run out and back on one line
    with pytest.raises(MonoError, match="no line runs midway"):
        centreline([Lane("flat", back, back[:2])], closed=True)
