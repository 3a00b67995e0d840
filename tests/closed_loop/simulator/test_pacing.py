"""Simulated time keeps beside the wall clock, falls behind without skipping, and every rate comes out exactly."""

from __future__ import annotations

from itertools import pairwise

import pytest

from closed_loop.simulator.pacing import Pacer, is_due


class Wall:
    """A wall clock that only sleeping and working move on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0.0
        self.now_s += seconds

    work = sleep


def run(pacer: Pacer, wall: Wall, steps: int, work_s: float, first: int = 0) -> None:
    for step in range(first, first + steps):
        pacer.wait(0.01 * step)
        wall.work(work_s)


@pytest.mark.parametrize("time_scale", [0.5, 1.0, 4.0])
def test_a_fast_machine_keeps_the_scale(time_scale: float) -> None:
    wall = Wall()
    pacer = Pacer(time_scale, clock=wall.clock, sleep=wall.sleep)
    run(pacer, wall, 1001, 0.001)
    assert wall.now_s - 1000.0 == pytest.approx(10.0 / time_scale, abs=0.01)
    assert pacer.achieved(10.0) == pytest.approx(time_scale, rel=0.01)


def test_a_slow_machine_gets_slow_time() -> None:
    wall = Wall()
    pacer = Pacer(4.0, clock=wall.clock, sleep=wall.sleep)
    run(pacer, wall, 1001, 0.005)
    assert pacer.achieved(10.0) == pytest.approx(2.0, rel=0.01)


def test_a_short_stall_is_made_up_for_and_a_long_one_forgotten() -> None:
    wall = Wall()
    pacer = Pacer(1.0, max_lag_s=0.2, clock=wall.clock, sleep=wall.sleep)
    run(pacer, wall, 100, 0.001)
    wall.work(0.15)
    run(pacer, wall, 100, 0.001, 100)
    assert wall.now_s - 1000.0 == pytest.approx(2.0, abs=0.02)
    wall.work(5.0)
    run(pacer, wall, 100, 0.001, 200)
    assert wall.now_s - 1000.0 == pytest.approx(3.0 + 5.0 - 0.2, abs=0.02)


@pytest.mark.parametrize("rate_hz", [10.0, 30.0, 40.0, 50.0, 100.0])
def test_every_rate_is_exact_and_even(rate_hz: float) -> None:
    due = [step for step in range(100 * 60) if is_due(step, rate_hz, 100.0)]
    assert due[0] == 0 and len(due) == pytest.approx(60 * rate_hz, abs=1)
    gaps = {after - before for before, after in pairwise(due)}
    assert max(gaps) - min(gaps) <= 1
