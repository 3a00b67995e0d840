"""Whatever ends, the kart stops: real processes, killed and stopped, and others that speak where one may."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.ros_processes import Domain, Node, until

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from collector.ros.session import is_running  # noqa: E402

CIRCLE = {"policy": "tests.helpers.constant_curvature:LeftCircle", "off_road_s": 0.0}
# Another controller, of which nobody knows but who looks: full speed ahead until it is killed.
TELEOP = """
import time, rclpy
from collector.ros.message_packages import message_class
from collector.ros.topics import CONTROL_CMD, qos_profile
rclpy.init()
node = rclpy.create_node("teleop", namespace="joy")
kind = message_class(CONTROL_CMD.type)
publisher = node.create_publisher(kind, CONTROL_CMD.name, qos_profile(CONTROL_CMD))
message = kind()
message.longitudinal.acceleration = 1.0
while True:
    publisher.publish(message)
    time.sleep(0.05)
"""


@pytest.fixture
def world(domain: Domain) -> Node:
    return domain.simulator(expert=False, image_width=320, image_height=180, log=domain.folder / "truth.npz")


def driving(domain: Domain, **parameters: Any) -> Node:
    out = domain.folder / "drive"
    driver = domain.start("closed_loop.ros.drive_node", **{**CIRCLE, "out": out, "use_sim_time": True, **parameters})
    driver.wait_for(r"\]: driving", 40.0)
    time.sleep(2.0)  # to come up to speed
    return driver


def stands(domain: Domain, world: Node) -> bool:
    """Whether the kart stood, braked, when the simulation was ended."""
    import numpy as np

    assert world.interrupt() == 0, world.output
    truth = np.load(domain.folder / "truth.npz")
    assert truth["speed_mps"].max() > 1.0, "it never drove"
    return bool(truth["speed_mps"][-1] == 0.0 and truth["commands"][-1, 1] < 0.0)


def ended(process: int, timeout_s: float = 20.0) -> None:
    until(lambda: not is_running(process), timeout_s, lambda: f"process {process} is still there")


def test_a_node_that_is_stopped_and_then_killed_is_braked_for(domain: Domain, world: Node) -> None:
    driver = driving(domain)
    policy = int(driver.wait_for(r"policy process (\d+) loads").group(1))
    guards = [
        int(place.parent.name)
        for place in Path("/proc").glob("[0-9]*/stat")
        if is_running(int(place.parent.name))
        and place.read_text().rpartition(")")[2].split()[1] == str(driver.process.pid)
    ]
    assert len(guards) == 2 and policy in guards
    driver.process.send_signal(signal.SIGSTOP)
    driver.wait_for("guard: the driving node says nothing since 0.[4-9] s: braking")
    time.sleep(2.5)
    driver.process.send_signal(signal.SIGCONT)
    driver.wait_for(r"(?s)camera frame stale.*\]: driving")
    time.sleep(2.0)
    driver.process.kill()
    driver.wait()
    until(lambda: "guard: the driving node is gone: braking" in driver.output, 5.0, lambda: driver.output)
    for process in guards:
        ended(process)
    assert stands(domain, world)


def test_a_closed_terminal_stops_the_kart_and_keeps_the_results(domain: Domain, world: Node) -> None:
    driver = driving(domain)
    assert driver.interrupt(signal.SIGHUP) == 1
    assert json.loads((domain.folder / "drive" / "metrics.json").read_text())["ended"] == "SIGHUP"
    assert "guard:" not in driver.output.partition("drive ended")[2], "it is silent after a clean end"
    time.sleep(2.0)
    assert stands(domain, world)


def test_seconds_that_were_asked_for_are_a_success(domain: Domain, world: Node) -> None:
    driver = driving(domain, duration_s=3.0)
    assert driver.wait(30.0) == 0, driver.output
    assert "drive ended: 3 s driven" in driver.output
    again = domain.start("closed_loop.ros.drive_node", **CIRCLE, out=domain.folder / "drive")
    assert again.wait() == 2 and "already holds a drive" in again.output
    assert stands(domain, world)


def test_a_second_driver_is_refused(domain: Domain, world: Node) -> None:
    driver = driving(domain)
    second = domain.start("closed_loop.ros.drive_node", **CIRCLE, out=domain.folder / "second")
    assert second.wait(40.0) == 2, second.output
    # On a busy machine its name may be late.
    assert re.search("another controller: (/alpamayo_drive|a node without a name)", second.output), second.output
    assert not re.search(r"\]: (driving|braking)", second.output), "its control loop never began"
    assert "Traceback" not in second.output
    assert driver.interrupt() == 0
    time.sleep(2.0)
    assert stands(domain, world)


def test_another_controller_is_braked_for(domain: Domain, world: Node) -> None:
    driver = driving(domain)
    other = subprocess.Popen([sys.executable, "-c", TELEOP], env=domain.environment, cwd=ROOT)
    try:
        driver.wait_for(r"braking: another controller \(.*(/joy/teleop|a node without a name)")
    finally:
        other.kill()
        other.wait()
    driver.wait_for(r"(?s)another controller.*\]: driving")
    assert driver.interrupt() == 0
    time.sleep(2.0)
    assert stands(domain, world)


def test_a_second_simulator_is_refused_and_a_killed_one_is_not_mistaken_for_it(domain: Domain, world: Node) -> None:
    world.wait_for("simulated at", 40.0)
    second = domain.simulator(camera=False)
    assert second.wait() == 2 and "another simulator: /simulator" in second.output
    world.process.kill()
    world.wait()
    third = domain.simulator(camera=False, duration_s=1.0)
    assert third.wait() == 0, third.output


def test_a_full_disk_is_named_and_ends_the_drive(domain: Domain, world: Node) -> None:
    out = domain.folder / "drive"
    driver = driving(domain)
    # What a process may write to a file ends like a disk does: with an error in the middle of a line.
    resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, ((out / "plans.jsonl").stat().st_size + 5000,) * 2)
    assert driver.wait() == 2, driver.output
    assert "plans.jsonl: File too large" in driver.output and "Traceback" not in driver.output
    assert "policy process died" not in driver.output
    assert "drive ended" in driver.output
    assert json.loads((out / "metrics.json").read_text())["plans"] > 5 and not list(out.glob("*.part"))
    time.sleep(1.0)
    assert stands(domain, world)


def test_nothing_outlives_a_launcher_that_is_killed(domain: Domain) -> None:
    words = ["simulator:=true", f"out:={domain.folder / 'drive'}", "image_width:=320", "image_height:=180"]
    words += [f"{name}:={value}" for name, value in CIRCLE.items()]
    log = domain.folder / "launcher.log"
    with log.open("wb") as file:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "closed_loop.cli", "drive", *words],
            env={**domain.environment, "ENDS_WITH_ITS_LAUNCHER": str(domain.folder)},
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def left() -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                ours = str(domain.folder).encode() in (place / "environ").read_bytes()
            except OSError:
                continue
            if ours and is_running(int(place.name)):
                found.append(int(place.name))
        return found

    try:
        until(lambda: "]: driving" in log.read_text(), 60.0, log.read_text)
        assert len(left()) == 6  # launcher, simulator, evaluator, node, policy, guard
        launcher.kill()
        launcher.wait()
        until(lambda: not left(), 20.0, lambda: f"left: {left()}\n{log.read_text()}")
        assert json.loads((domain.folder / "drive" / "metrics.json").read_text())["ended"] == "its launcher is gone"
    finally:
        for process in left():
            os.kill(process, signal.SIGKILL)
