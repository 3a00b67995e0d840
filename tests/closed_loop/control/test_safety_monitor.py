"""The watchdog brakes for each reason there is, says which, and lets go again when it is over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from closed_loop.control.plan_health import plan_defect
from closed_loop.control.safety_limits import SafetyLimits
from closed_loop.control.safety_monitor import SafetyMonitor


def straight_plan(speed_mps: float = 3.0) -> np.ndarray:
    poses = np.zeros((64, 3))
    poses[:, 0] = speed_mps * 0.1 * np.arange(1, 65)
    return poses


def driving(now_s: float = 100.0) -> SafetyMonitor:
    safety_monitor = SafetyMonitor(SafetyLimits(odometry_age_s=0.3))
    safety_monitor.frame_arrived(now_s)
    safety_monitor.odometry_arrived(now_s)
    assert safety_monitor.plan_arrived(straight_plan()) == ""
    assert safety_monitor.check(now_s, 0.1).drive
    return safety_monitor


def test_nothing_has_arrived_yet() -> None:
    safety_monitor = SafetyMonitor()
    assert safety_monitor.check(1.0, None).reason == "no camera frame yet"
    safety_monitor.frame_arrived(1.0)
    assert safety_monitor.check(1.0, None).reason == "no odometry yet"
    safety_monitor.odometry_arrived(1.0)
    assert safety_monitor.check(1.0, None).reason == "no plan yet"
    safety_monitor.plan_arrived(straight_plan())
    assert safety_monitor.check(1.0, 0.0).drive


@pytest.mark.parametrize(
    ("fresh", "reason"), [("odometry_arrived", "camera frame stale"), ("frame_arrived", "odometry stale")]
)
def test_stale_input_brakes_and_recovers(fresh: str, reason: str) -> None:
    safety_monitor = driving(100.0)
    getattr(safety_monitor, fresh)(101.0)
    decision = safety_monitor.check(101.0, 0.1)
    assert (decision.drive, decision.reason) == (False, reason)
    assert "1.00 s" in decision.detail
    # Not at once: all has to have been well for 0.8 s, and 3 frames.
    driven = []
    for step in range(1, 11):
        now_s = 101.0 + 0.1 * step
        safety_monitor.frame_arrived(now_s)
        safety_monitor.odometry_arrived(now_s)
        driven.append(safety_monitor.check(now_s, 0.1).drive)
    assert driven[:7] == [False] * 7 and all(driven[8:])
    assert safety_monitor.brakes == {reason: 1}


def test_ages_are_vehicle_time() -> None:
    safety_monitor = driving(100.0)
    assert safety_monitor.check(100.2, 0.1, time_rate=1.0).drive
    assert safety_monitor.check(100.2, 0.1, time_rate=4.0).reason == "camera frame stale"


def test_a_hanging_policy_shows_as_a_stale_plan() -> None:
    safety_monitor = driving(100.0)
    safety_monitor.frame_arrived(102.0)
    safety_monitor.odometry_arrived(102.0)
    assert safety_monitor.check(102.0, 1.4).drive
    assert safety_monitor.check(102.0, 1.6).reason == "plan stale"


def test_dead_policy_brakes_even_with_a_fresh_plan() -> None:
    safety_monitor = driving()
    safety_monitor.policy_died("ended by signal 9")
    decision = safety_monitor.check(100.0, 0.1)
    assert decision.reason == "policy process died" and "signal 9" in decision.detail


def test_a_bad_plan_brakes_until_a_good_one() -> None:
    safety_monitor = driving()
    bad = straight_plan()
    bad[10, 1] = np.nan
    assert safety_monitor.plan_arrived(bad)
    assert safety_monitor.check(100.0, 0.1).reason == "plan not sane"
    safety_monitor.plan_arrived(straight_plan())
    assert safety_monitor.check(100.0, 0.1).reason == "plan not sane", "it waits before it believes the policy again"
    for step in range(1, 10):
        safety_monitor.frame_arrived(100.0 + 0.1 * step)
        safety_monitor.odometry_arrived(100.0 + 0.1 * step)
        decision = safety_monitor.check(100.0 + 0.1 * step, 0.1)
    assert decision.drive
    safety_monitor.policy_failed("out of memory")
    assert safety_monitor.check(100.9, 0.1).detail == "out of memory"


def test_a_teleport_needs_a_new_plan() -> None:
    safety_monitor = driving()
    assert safety_monitor.check(100.0, 0.1, plan_offset_m=9.0).reason == "vehicle off its plan"
    assert safety_monitor.check(100.0, 0.1, plan_offset_m=float("nan")).reason == "vehicle off its plan"
    safety_monitor.forget_plan()
    assert safety_monitor.check(100.0, 0.1).reason == "no plan yet"


def test_a_reason_is_counted_once_per_occurrence() -> None:
    safety_monitor = driving(100.0)
    for tick in range(40):
        safety_monitor.check(100.4 + 0.025 * tick, 0.1)
    assert safety_monitor.brakes == {"odometry stale": 1, "camera frame stale": 1}


def shifted_start(poses: np.ndarray) -> None:
    poses[:, 1] += 3.0


def jump(poses: np.ndarray) -> None:
    poses[30:, 0] += 5.0


def spin(poses: np.ndarray) -> None:
    poses[20, 2] = 2.0


def infinite(poses: np.ndarray) -> None:
    poses[63, 0] = np.inf


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(shifted_start, "starts 3.0 m"), (jump, "jumps 5.3 m at 3.1 s"), (spin, "turns 2.0 rad"), (infinite, "finite")],
)
def test_plan_defects_are_named(spoil: Callable[[np.ndarray], None], words: str) -> None:
    poses = straight_plan()
    assert plan_defect(poses) == ""
    spoil(poses)
    assert words in plan_defect(poses)


def test_wrong_shape_is_a_defect_and_a_turn_through_pi_is_none() -> None:
    assert "shape" in plan_defect(np.zeros((10, 3)))
    circle = np.zeros((64, 3))
    angle = 0.1 * np.arange(1, 65)
    circle[:, 0], circle[:, 1] = 4 * np.sin(angle), 4 * (1 - np.cos(angle))
    circle[:, 2] = (angle + np.pi) % (2 * np.pi) - np.pi
    assert plan_defect(circle) == ""
