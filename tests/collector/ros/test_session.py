"""A node's process ends the same way whatever asks for it, and says in a sentence why ROS does not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.ros import transport
from collector.ros.session import (
    LAUNCHER_GONE,
    LAUNCHER_VARIABLE,
    Session,
    ended_by_failures,
    ended_with_launcher,
    is_running,
    launcher_of,
    signals_to,
)
from collector.ros.transport import check_domain, middleware_error
from tests.helpers.paths import ROOT

# A node that does nothing until its session ends.
IDLE = """
import sys
from rclpy.node import Node
from collector.ros.session import node_main
def work(node):
    print("ready", flush=True)
    node.session.stop.wait(30.0)
    print("ended:", node.session.why, flush=True)
    return 0
class Idle(Node):
    def __init__(self, session):
        super().__init__("idle", start_parameter_services=False, enable_rosout=False)
        self.session = session
sys.exit(node_main(Idle, work, []))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_handed_over(number: signal.Signals) -> None:
    heard: list[str] = []
    before = signal.getsignal(number)
    with signals_to(heard.append):
        os.kill(os.getpid(), number)
    assert heard == [number.name] and signal.getsignal(number) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_to(lambda _name: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_ends_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session()
    with ended_by_failures(session):
        thread = threading.Thread(target=lambda: 1 / 0, name="control")
        thread.start()
        thread.join()
    assert session.stop.is_set() and "'control' failed: ZeroDivisionError" in session.failed
    session.end("SIGINT")
    assert session.why == session.failed, "the first reason is kept"


def test_a_launcher_that_is_gone_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as launcher:
        monkeypatch.setenv(LAUNCHER_VARIABLE, str(launcher.pid))
        session = Session()
        with ended_with_launcher(session):
            assert not session.stop.wait(0.3)
            launcher.kill()  # and nobody has waited for it: it is a zombie
            assert session.stop.wait(10.0) and session.failed == LAUNCHER_GONE


def test_who_the_launcher_is(tmp_path: Path) -> None:
    assert launcher_of(os.getpid(), {}) is None, "a shell, or whatever this is"
    assert launcher_of(os.getpid(), {LAUNCHER_VARIABLE: "12"}) == 12
    assert launcher_of(os.getpid(), {LAUNCHER_VARIABLE: "-1"}) is None
    ros2 = tmp_path / "ros2"
    ros2.write_text("import time; print('ready', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, str(ros2), "run", "x"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert launcher_of(child.pid, {}) == child.pid
        child.kill()
    assert not is_running(child.pid)


@pytest.mark.parametrize("said", ["abc", "9999", "-1", "233", "1.5", "٣"])
def test_a_domain_that_nobody_can_join_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", said)
    with pytest.raises(MonoError, match="ROS_DOMAIN_ID"):
        check_domain()


def test_domains_that_can_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("", "0", "101", "232"):
        monkeypatch.setenv("ROS_DOMAIN_ID", said)
        check_domain()
    monkeypatch.delenv("ROS_DOMAIN_ID")
    check_domain()


def test_a_middleware_that_does_not_start_is_given_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmem, flags = tmp_path / "rmem_max", tmp_path / "flags"
    rmem.write_text("212992\n")
    flags.write_text("0x49\n")
    monkeypatch.setattr(transport, "_RMEM_MAX", rmem)
    monkeypatch.setattr(transport, "_LO_FLAGS", flags)
    error = RuntimeError("error creating node: rmw_create_node: failed to create domain, error Error, at /a/b.cpp:1")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    sentence = str(middleware_error(error))
    assert "net.core.rmem_max is 212992" in sentence and "sysctl -w net.core.rmem_max=2147483647" in sentence
    assert "failed to create domain" in sentence and "/a/b.cpp" not in sentence
    rmem.write_text("2147483647\n")
    sentence = str(middleware_error(error))
    assert "lo multicast on" in sentence and "CYCLONEDDS_URI" in sentence and "is 2147483647" not in sentence
    flags.write_text("0x1049\n")
    assert "multicast on" not in str(middleware_error(error))
    monkeypatch.delenv("RMW_IMPLEMENTATION")
    assert "RMW_IMPLEMENTATION" in str(middleware_error(error))
    assert "--ros-args" in str(middleware_error(RuntimeError("Couldn't parse remap rule: '-r a'. Error: x")))


@pytest.mark.ros
def test_a_ros_that_does_not_start_is_a_sentence(ros_environment: dict[str, str]) -> None:
    for variables, words in (
        ({"ROS_DOMAIN_ID": "9999"}, []),
        ({}, ["--ros-args", "-p", "x"]),
        ({}, ["--ros-args", "--no"]),
    ):
        code = IDLE.replace("work, []", f"work, {words!r}")
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            env={**ros_environment, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.ros
def test_a_node_ends_well_when_nobody_reads_it_any_more(ros_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IDLE], env=ros_environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as node:
        assert node.stdout is not None and node.stderr is not None
        assert node.stdout.readline() == b"ready\n"
        node.stdout.close()
        time.sleep(0.1)
        node.send_signal(signal.SIGTERM)
        errors = node.stderr.read().decode()
        assert node.wait(20.0) == 0, errors
        assert "Traceback" not in errors and "BrokenPipe" not in errors
