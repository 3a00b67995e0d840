"""Policy processes that do odd things, and the ends of them: quick, with a reason, and nobody left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closed_loop.serving.child import PolicyProcess
from closed_loop.serving.settings import PolicySpec
from collector.common.files import PROJECT_ROOT
from tests.helpers.told import Told, observation, until


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[PolicyProcess, Told]]]:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    children: list[PolicyProcess] = []

    def begin(how: str, **settings: Any) -> tuple[PolicyProcess, Told]:
        told = Told()
        spec = PolicySpec("tests.helpers.hostile_policies:Odd", {"how": how})
        children.append(PolicyProcess(spec, told.answers, **settings))
        children[-1].start()
        return children[-1], told

    yield begin
    for each in children:
        each.close()


@pytest.mark.parametrize("how", ["closes_output", "prints", "forks", "sound"])
def test_a_child_that_does_odd_things_plans_on(child: Any, how: str) -> None:
    client, told = child(how)
    until(lambda: told.ready)
    for stamp_ns in (1, 2):
        client.submit(observation(stamp_ns))
        until(lambda n=stamp_ns: len(told.plans) == n)
    assert told.plans[-1].plan.reasoning == "sound" and not told.deaths and not told.errors


def test_a_child_that_ends_itself(child: Any) -> None:
    client, told = child("ends")
    until(lambda: told.ready)
    client.submit(observation(1))
    until(lambda: told.deaths)
    assert "exit code 3" in told.deaths[0]


def living_group(number: int) -> list[str]:
    """Processes of a group; one that is dead and that nobody has asked about does not count."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        found += [status.parent.name] if int(group) == number and state != "Z" else []
    return found


@pytest.mark.parametrize("how", ["hangs", "leaves_a_child"])
def test_closing_is_quick_and_leaves_nobody(child: Any, how: str) -> None:
    client, told = child(how, timeout_s=0.3)
    until(lambda: told.ready)
    client.submit(observation(1))
    until(lambda: told.plans or told.errors)
    assert len(living_group(client.pid)) == (2 if how == "leaves_a_child" else 1)
    began_s = time.monotonic()
    client.close()
    assert time.monotonic() - began_s < 3.0
    until(lambda: not living_group(client.pid))


PARENT = """
import sys, time
from closed_loop.serving.child import PolicyProcess
from closed_loop.serving.client import Answers
from closed_loop.serving.settings import PolicySpec
nothing = lambda _: None
spec = PolicySpec("tests.helpers.hostile_policies:Odd", {})
process = PolicyProcess(spec, Answers(lambda _: print(process.pid, flush=True), nothing, nothing, nothing))
process.start()
time.sleep(100)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_child_ends_with_its_parent(stopped: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    status = Path(f"/proc/{pid}/stat")
    # Whoever inherits it may leave it as a zombie.
    until(lambda: not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("program", ["/bin/true", "/bin/cat"])
def test_a_program_that_is_no_python_is_said_so(program: str) -> None:
    told = Told()
    process = PolicyProcess(PolicySpec("tests.helpers.hostile_policies:Odd", {}, program), told.answers)
    try:
        process.start()
        until(lambda: told.deaths)
    finally:
        process.close()
    assert told.deaths[0].startswith(f"{program} ended before it served a policy")
    assert "exit code" in told.deaths[0] and "set policy_python" in told.deaths[0]
