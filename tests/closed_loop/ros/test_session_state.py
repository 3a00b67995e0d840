"""What the session's states mean for a driver, in whatever order they are heard."""

from __future__ import annotations

import pytest

from closed_loop.ros.session_state import SessionState


def test_the_grid_in_its_order() -> None:
    session, holds = SessionState(), []
    for now_s, state in enumerate(("Spawned", "Grounded", "Ready", "Start", "Finish")):
        assert session.heard(state)
        holds.append(bool(session.hold(now_s, 1)))
    assert holds == [True, True, True, False, False] and session.finished


@pytest.mark.parametrize("state", ["Spawned", "Grounded", "Ready"])
def test_one_who_comes_late_waits_for_the_start_only(state: str) -> None:
    session = SessionState()
    session.heard(state)
    assert state in session.hold(0.0, 1)
    session.heard("Start")
    assert not session.hold(1.0, 1)
    session.heard("Spawned")
    assert session.hold(2.0, 1), "a reset begins it all anew"


def test_nobody_who_says_the_state_is_waited_for() -> None:
    session = SessionState()
    assert not session.hold(0.0, 0)


def test_a_publisher_that_is_not_heard_is_waited_for_a_moment_only() -> None:
    session = SessionState()
    assert [bool(session.hold(now_s, 1)) for now_s in (0.0, 1.0, 1.9, 2.1, 50.0)] == [True, True, True, False, False]


@pytest.mark.parametrize("text", ["", "start", "Countdown", "Start\0", "x" * 10_000])
def test_other_words_change_nothing(text: str) -> None:
    session = SessionState()
    session.heard("Ready")
    assert not session.heard(text) and session.hold(0.0, 1) and session.unknown
    assert session.heard(" Start\n")
