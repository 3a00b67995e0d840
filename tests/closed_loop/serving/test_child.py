"""The policy process: plans come back, the newest frame wins, and every way of failing is reported."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from closed_loop.serving.child import PolicyProcess, child_environment
from closed_loop.serving.settings import PolicySpec
from collector.common.errors import MonoError
from collector.common.files import PROJECT_ROOT
from finetune.policy import Observation
from tests.helpers.told import Told


class Events(Told):
    """A policy process whose callbacks are written down."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.process = PolicyProcess(spec, self.answers)
        self.process.start()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Events]]:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    started: list[Events] = []

    def begin(policy: str = "tests.helpers.constant_curvature:ConstantCurvature", **options: Any) -> Events:
        started.append(Events(PolicySpec(policy, options)))
        return started[-1]

    yield begin
    for events in started:
        events.process.close()


def until(variant: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not variant():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def observation(stamp_ns: int, frames: int = 4) -> Observation:
    images = np.full((frames, 36, 64, 3), stamp_ns % 251, np.uint8)
    return Observation(stamp_ns, {"front": images}, np.zeros((16, 3)), 2.5)


def test_plans_return_and_the_newest_frame_wins(start: Callable[..., Events]) -> None:
    events = start(delay_s=0.3, curvature_1pm=0.1, speed_mps=2.0)
    until(lambda: events.ready)
    for stamp_ns in range(1, 21):
        events.process.submit(observation(stamp_ns))
        time.sleep(0.02)
    until(lambda: events.process.idle)
    stamps = [reply.plan.stamp_ns for reply in events.plans]
    assert stamps[0] == 1 and stamps[-1] == 20 and len(stamps) < 6
    assert events.process.skipped == 20 - len(stamps)
    assert events.plans[0].plan.poses[:, 1][-1] != 0
    assert events.plans[0].compute_ms >= 300
    assert events.plans[0].round_trip_ms >= events.plans[0].compute_ms
    # What the policy prints reaches the log and not the wire.
    assert "planning" in events.log


def test_a_killed_process_is_reported_and_closing_is_quick(start: Callable[..., Events]) -> None:
    events = start(delay_s=5.0)
    until(lambda: events.ready)
    events.process.submit(observation(1))
    time.sleep(0.1)
    os.kill(events.process.pid, signal.SIGKILL)
    until(lambda: events.deaths)
    assert "signal 9" in events.deaths[0]
    events.process.submit(observation(2))  # into the void, without harm
    began = time.monotonic()
    events.process.close()
    assert time.monotonic() - began < 1.0
    assert len(events.deaths) == 1


def test_an_error_in_one_frame_is_not_the_end(start: Callable[..., Events]) -> None:
    events = start(fail_at_stamp_ns=1)
    until(lambda: events.ready)
    events.process.submit(observation(1))
    until(lambda: events.errors)
    assert "unlucky" in events.errors[0]
    events.process.submit(observation(2))
    until(lambda: events.plans)
    assert not events.deaths


def test_a_model_that_does_not_load_says_why(start: Callable[..., Events]) -> None:
    events = start("tests.helpers.constant_curvature:Missing")
    until(lambda: events.deaths)
    assert "tests.helpers.constant_curvature:Missing" in events.deaths[0] and not events.ready
    events = start(unheard_of=1)
    until(lambda: events.deaths)
    assert "unheard_of" in events.deaths[0]


def test_closing_ends_the_child_and_is_no_death(start: Callable[..., Events]) -> None:
    events = start()
    until(lambda: events.ready)
    pid = events.process.pid
    events.process.close()
    assert not events.deaths
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_interpreter_that_does_not_exist() -> None:
    with pytest.raises(MonoError, match="policy_python"):
        Events(PolicySpec(python="/no/such/python"))


def test_another_interpreter_does_not_inherit_this_environment() -> None:
    ours = {
        "PYTHONPATH": "/opt/ros/lib",
        "LD_LIBRARY_PATH": "/opt/ros",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
        "HOME": "/h",
    }
    child = child_environment("/other/bin/python", ours)
    assert child == {"HOME": "/h", "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    same = child_environment(sys.executable, ours)
    assert same["LD_LIBRARY_PATH"] == "/opt/ros"
    assert same["PYTHONPATH"].split(os.pathsep) == [str(PROJECT_ROOT), "/opt/ros/lib"]
