"""A drive ends when its laps or seconds are driven, and says so when there is nothing to drive with."""

from __future__ import annotations

import pytest

from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.course.design import course_named
from closed_loop.ros.termination import DriveTermination

SECOND = 1_000_000_000


def status(lap: float) -> list[float]:
    return [0.0, lap, 0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("first", [0, 1, 5])
def test_laps_count_from_wherever_the_simulator_starts(first: int) -> None:
    termination = DriveTermination(2, 0.0, wait_s=10.0)
    assert not termination.status(status(first))
    assert not termination.status(status(first))
    assert termination.status(status(first + 1))
    assert termination.update(20.0, SECOND, True, 3.0, 20.0, 5) == "" and not termination.goal
    assert termination.status(status(first + 2))
    assert termination.update(20.0, SECOND, True, 3.0, 20.0, 5) == "" and termination.goal and termination.complete
    # The kart is given time to stop.
    assert termination.update(21.0, SECOND, False, 1.0, 21.0, 5) == ""
    assert termination.update(22.0, SECOND, False, 0.0, 22.0, 5) == "2 of 2 laps done"


def test_a_status_without_laps_and_a_counter_set_back_are_ignored() -> None:
    termination = DriveTermination(1, 0.0, wait_s=10.0)
    for fields in ([], [0.0], status(float("nan")), status(3), status(0), status(0)):
        assert not termination.status(fields)
    assert termination.status(status(1)) and termination.laps_done == 1


def test_seconds_count_from_the_first_driven_tick() -> None:
    termination = DriveTermination(0, 5.0, wait_s=10.0)
    assert termination.update(1.0, 100 * SECOND, False, 0.0, 1.0, 1) == ""
    assert termination.update(2.0, 107 * SECOND, True, 0.0, 2.0, 1) == "" and not termination.goal
    assert termination.update(3.0, 112 * SECOND, True, 2.0, 3.0, 1) == "" and termination.goal == "5 s driven"
    assert termination.update(20.0, 113 * SECOND, False, 2.0, 20.0, 1) == "5 s driven"


@pytest.mark.parametrize("second_clock_s", [range(3000), range(4990, 8000), range(1_700_000_000, 1_700_003_000)])
def test_seconds_before_and_after_another_clock_add_up(second_clock_s: range) -> None:
    """The simulator restarts after 30 s: its clock begins anew, steps back a little, or is the wall's."""
    termination = DriveTermination(0, 60.0, wait_s=10.0)
    stamps_s = [*range(5000, 5030), *second_clock_s]
    wall_s = next(
        wall_s
        for wall_s, stamp_s in enumerate(stamps_s, start=1)
        if termination.update(wall_s, stamp_s * SECOND, True, 4.0, wall_s, 100) or termination.goal
    )
    assert termination.goal == "60 s driven" and wall_s == 62  # one step to begin with, one across the restart


def test_stamps_that_are_merely_late_pass_no_time() -> None:
    termination = DriveTermination(0, 10.0, wait_s=10.0)
    for tick in range(100):
        for late_ns in (0, 50_000_000, 20_000_000):
            assert not termination.update(tick * 0.1, tick * SECOND // 10 - late_ns, True, 4.0, tick * 0.1, 9)
            assert not termination.goal
    assert not termination.update(10.0, 10 * SECOND, True, 4.0, 10.0, 9) and termination.goal


def test_waiting_in_vain_says_what_is_missing() -> None:
    nothing = DriveTermination(1, 0.0, wait_s=10.0)
    assert nothing.update(9.0, None, False, 0.0, None, 0) == ""
    assert "kinematic_state" in nothing.update(11.0, None, False, 0.0, None, 0)
    blind = DriveTermination(1, 0.0, wait_s=10.0)
    assert blind.update(9.0, SECOND, False, 0.0, 9.0, 0) == ""
    assert "--camera" in blind.update(11.0, SECOND, False, 0.0, 11.0, 0)
    assert "--camera" in blind.failed


def test_the_ros_domain_is_suspected_only_where_nothing_was_heard() -> None:
    def failure(*publishers: int, frames: int = 0) -> str:
        termination = DriveTermination(1, 0.0, wait_s=10.0)
        for count in publishers:
            termination.simulator(count)
        return termination.update(11.0, None, False, 0.0, None, frames)

    assert "in this ROS domain" in failure(0)
    for sentence in (failure(1), failure(0, 1), failure(frames=5), failure(1, 0, 1)):
        assert "a simulator is there" in sentence and "GNSS" in sentence and "domain" not in sentence
    for sentence in (failure(1, 0), failure(0, 1, 0, frames=5)):
        assert "the simulator has left" in sentence and "domain" not in sentence


def test_what_was_asked_for_is_told_from_what_merely_ended() -> None:
    def drive(**asked: float) -> DriveTermination:
        return DriveTermination(**{"laps": 0, "wait_s": 10.0, **asked})  # type: ignore[arg-type]

    laps, seconds, road, dead = drive(laps=1), drive(laps=3, duration_s=1.0), drive(off_track_s=1.0), drive()
    laps.laps_done = 1
    off = OffTrackMonitor(course_named("city"))
    off.off_s = 2.0
    dead.give_up("the policy process died")
    for termination, monitor in ((laps, None), (seconds, None), (road, off), (dead, None)):
        for tick in range(3):
            termination.update(float(tick), tick * SECOND, True, 2.0, float(tick), 5, monitor)
        assert termination.goal
    assert laps.reached and seconds.reached and not road.reached and not dead.reached


def test_a_silent_simulator_has_left_only_with_its_publisher() -> None:
    assert not DriveTermination.is_gone(100.0, None, 0)
    assert not DriveTermination.is_gone(100.0, 98.0, 0)
    assert not DriveTermination.is_gone(100.0, 90.0, 1)
    assert DriveTermination.is_gone(100.0, 90.0, 0)
