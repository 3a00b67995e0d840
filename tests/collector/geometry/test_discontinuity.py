"""The one rule for where poses are no single motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.geometry.discontinuity import CLOCK_BACK, GAP, LATE, TELEPORT, StampedTime, discontinuity, teleports


@pytest.mark.parametrize(
    ("step_s", "moved_m", "speeds_mps", "why"),
    [
        (0.02, 0.2, (10.0, 10.0), ""),
        (0.02, 1.3, (10.0, 10.0), ""),
        (0.02, 1.5, (10.0, 10.0), TELEPORT),
        (0.02, 1.3, (), ""),
        (0.02, 1.3, (math.nan, 2.0), TELEPORT),
        (0.21, 0.0, (), GAP),
        (0.0, 0.0, (), LATE),
        (-0.5, 50.0, (), LATE),
        (-1.0, 0.0, (), CLOCK_BACK),
    ],
)
def test_two_poses(step_s: float, moved_m: float, speeds_mps: tuple[float, ...], why: str) -> None:
    assert discontinuity(round(step_s * 1e9), moved_m, speeds_mps) == why


def test_a_silence_may_be_longer_where_it_is_allowed() -> None:
    assert discontinuity(900_000_000, 4.0, (4.0,), max_gap_s=1.0) == ""


def test_teleports_of_a_drive() -> None:
    t_s = np.arange(6) * 0.1
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 0.0], [10.0, 0.0], [10.0, -3.1]])
    assert teleports(t_s, xy).tolist() == [False, False, False, True, False, True]
    assert teleports(t_s[:1], xy[:1]).tolist() == [False]
    assert teleports(t_s[:0], xy[:0]).tolist() == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6), st.data())
def test_time_is_the_sum_of_what_each_clock_ran(steps: list[int], restarts: list[int], data: st.DataObject) -> None:
    """Whatever each clock begins at, as long as that is another time."""
    time, stamp_ns, expected_ns = StampedTime(), 10**18, 0
    time.add(stamp_ns)
    for number, step in enumerate(steps):
        if number in restarts:
            stamp_ns = data.draw(st.integers(0, stamp_ns - 2 * 10**9)) if stamp_ns > 2 * 10**9 else stamp_ns + 10**15
            time.add(stamp_ns)
        stamp_ns += step * 10**7
        expected_ns += step * 10**7
        time.add(stamp_ns)
        time.add(stamp_ns - min(5 * 10**6, stamp_ns))  # one that comes late
    assert time.passed_ns == expected_ns
