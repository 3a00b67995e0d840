"""A drive over ROS that has lost the road ends by itself; one on a foreign map does not."""

from __future__ import annotations

import numpy as np
import pytest

from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.course.design import course_named

NS = 1_000_000_000


def off_s(monitor: OffTrackMonitor, stamp_ns: int, pose_map: np.ndarray) -> float:
    monitor.update(stamp_ns, pose_map)
    return monitor.off_s


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_seconds_count_from_the_edge(side: float) -> None:
    road = course_named("city")
    monitor = OffTrackMonitor(road)
    for index, lateral_m in enumerate([0.0, 1.0, 2.0, 4.0, 4.5, 5.0]):
        off = off_s(monitor, index * NS, road.pose_at(8.0 + 2.0 * index, side * lateral_m))
        # The half road is about 3.6 m wide and the kart 0.65 m: 4 m aside its corner is over the edge.
        assert off == pytest.approx(max(0, index - 3))
    assert off_s(monitor, 6 * NS, road.pose_at(34.0, 0.0)) == 0.0


def test_a_corner_over_the_edge_is_off_the_road() -> None:
    road = course_named("random:3")
    edge_m = float(road.at(50.0, road.width_left_m))
    monitor = OffTrackMonitor(road)
    assert off_s(monitor, 0, road.pose_at(50.0, 0.0)) == 0.0
    assert off_s(monitor, NS, road.pose_at(50.0, edge_m - 0.45)) == 0.0
    assert off_s(monitor, 3 * NS, road.pose_at(50.0, edge_m - 0.45)) == pytest.approx(2.0)


def test_a_course_somewhere_else_is_no_road_to_be_off() -> None:
    monitor = OffTrackMonitor(course_named("city"))
    for index in range(50):
        assert off_s(monitor, index * NS, np.array([89_600.0 + index, 42_200.0, 0.3])) == 0.0


def test_a_clock_set_back_starts_anew() -> None:
    road = course_named("city")
    monitor = OffTrackMonitor(road)
    monitor.update(100 * NS, road.pose_at(10.0, 0.0))
    monitor.update(101 * NS, road.pose_at(12.0, 6.0))
    assert off_s(monitor, 105 * NS, road.pose_at(12.0, 6.0)) == pytest.approx(4.0)
    assert off_s(monitor, 2 * NS, road.pose_at(300.0, 6.0)) == 0.0
    assert off_s(monitor, 3 * NS, road.pose_at(300.0, 6.0)) == pytest.approx(1.0)


def test_an_event_lasts_until_the_kart_is_wholly_back_for_a_while_or_placed_elsewhere() -> None:
    road = course_named("city")
    monitor = OffTrackMonitor(road)
    begun = []
    for index, aside in enumerate([0.0, 6.0, 6.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 6.0]):
        begun.append(monitor.update(index * NS // 5, road.pose_at(10.0 + 0.4 * index, aside)))
    assert begun == [False, True, *[False] * 7, True] and monitor.events == 2
    assert monitor.beyond_m > 1.0
    monitor.reset()
    assert monitor.update(2 * NS, road.pose_at(100.0, 6.0)) and monitor.events == 3
