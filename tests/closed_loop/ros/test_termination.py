"""A drive ends when its laps or seconds are driven, and says so when there is nothing to drive with."""

from __future__ import annotations

import pytest

from closed_loop.ros.termination import Mission

SECOND = 1_000_000_000


def status(lap: float) -> list[float]:
    return [0.0, lap, 0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("first", [0, 1, 5])
def test_laps_count_from_wherever_the_simulator_starts(first: int) -> None:
    mission = Mission(2, 0.0, 10.0, 0.0)
    assert not mission.status(status(first))
    assert not mission.status(status(first))
    assert mission.status(status(first + 1))
    assert mission.update(20.0, SECOND, True, 3.0, 20.0, 5) == "" and not mission.goal
    assert mission.status(status(first + 2))
    assert mission.update(20.0, SECOND, True, 3.0, 20.0, 5) == "" and mission.goal and mission.complete
    # The kart is given time to stop.
    assert mission.update(21.0, SECOND, False, 1.0, 21.0, 5) == ""
    assert mission.update(22.0, SECOND, False, 0.0, 22.0, 5) == "2 of 2 laps done"


def test_a_status_without_laps_and_a_counter_set_back_are_ignored() -> None:
    mission = Mission(1, 0.0, 10.0, 0.0)
    for fields in ([], [0.0], status(float("nan")), status(3), status(0), status(0)):
        assert not mission.status(fields)
    assert mission.status(status(1)) and mission.laps_done == 1


def test_seconds_count_from_the_first_driven_tick() -> None:
    mission = Mission(0, 5.0, 10.0, 0.0)
    assert mission.update(1.0, 100 * SECOND, False, 0.0, 1.0, 1) == ""
    assert mission.update(2.0, 107 * SECOND, True, 0.0, 2.0, 1) == "" and not mission.goal
    assert mission.update(3.0, 112 * SECOND, True, 2.0, 3.0, 1) == "" and mission.goal == "5 s driven"
    assert mission.update(20.0, 113 * SECOND, False, 2.0, 20.0, 1) == "5 s driven"


def test_waiting_in_vain_says_what_is_missing() -> None:
    nothing = Mission(1, 0.0, 10.0, 0.0)
    assert nothing.update(9.0, None, False, 0.0, None, 0) == ""
    assert "kinematic_state" in nothing.update(11.0, None, False, 0.0, None, 0)
    blind = Mission(1, 0.0, 10.0, 0.0)
    assert blind.update(9.0, SECOND, False, 0.0, 9.0, 0) == ""
    assert "--camera" in blind.update(11.0, SECOND, False, 0.0, 11.0, 0)
    assert "--camera" in blind.failed


def test_a_silent_simulator_has_left_only_with_its_publisher() -> None:
    assert not Mission.is_gone(100.0, None, 0)
    assert not Mission.is_gone(100.0, 98.0, 0)
    assert not Mission.is_gone(100.0, 90.0, 1)
    assert Mission.is_gone(100.0, 90.0, 0)
