"""By the rules of the end-to-end class: what the driver hears, what it is told, and a lap driven by wheels alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.ros_processes import Domain

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros


from closed_loop.comparison.measure import measure_drive  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.ros import topics  # noqa: E402
from collector.ros.message_packages import message_class  # noqa: E402
from tests.helpers.drive_nodes import driving_nodes, reports, told  # noqa: E402

SMALL = {"image_width": 320, "image_height": 180}
WHEELS = {topics.CAMERA_IMAGE, topics.VELOCITY_STATUS, topics.STEERING_STATUS, topics.GEAR_STATUS}
FREE = {topics.CAMERA_IMAGE, topics.ODOMETRY, topics.AWSIM_STATUS, topics.AWSIM_STATE}


@pytest.fixture
def make(tmp_path: Path, ros_environment: dict[str, str]) -> Iterator[Any]:
    with driving_nodes(tmp_path) as made:
        yield made


@pytest.mark.parametrize(("rules", "wanted"), [("e2e", WHEELS), ("free", FREE)])
def test_the_live_subscriptions_are_those_of_the_rules(make: Any, rules: str, wanted: set[topics.Topic]) -> None:
    node = make(rules=rules)
    names = {topic.name for topic in wanted} | {topics.CLOCK.name}
    assert {each.topic_name for each in node.subscriptions} == names
    heard = node.get_subscriber_names_and_types_by_node(node.get_name(), node.get_namespace())
    assert {name for name, _ in heard} - {"/parameter_events"} == names
    node.destroy_node()


def test_the_rules_of_the_class_are_the_default(make: Any) -> None:
    node = make()
    assert node.values.rules == "e2e" and node.inputs.pose_topic is topics.VELOCITY_STATUS
    node.destroy_node()


def test_the_driver_does_not_know_the_evaluator() -> None:
    code = "import sys, closed_loop.ros.drive_node; print([n for n in sys.modules if 'evaluator' in n])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_wheels_become_the_drivers_odometry(make: Any) -> None:
    node = make(evaluator="false")
    reports(node, 31)
    newest = node.driver.poses.newest
    assert newest is not None
    assert newest[1].tolist() == pytest.approx([3.0 * 30 * 0.033, 0.0, 0.0]) and newest[2] == 3.0
    reports(node, 1, math.nan)
    assert len(node.driver.poses) == 31
    node.destroy_node()


def test_a_kart_in_reverse_is_not_pushed(make: Any) -> None:
    node = make(evaluator="false")
    reports(node, 5)
    for gear, braked in ((topics.GEAR_DRIVE, False), (20, True), (21, True), (3, False), (0, False)):
        node.inputs.on_gear(message_class(topics.GEAR_STATUS.type)(report=gear))
        tick = node.driver.tick(0.0)
        assert (tick.decision.reason == "in reverse") == braked
        assert tick.command.accel_mps2 < 0.0
    node.destroy_node()


def test_orders_hold_the_kart_count_laps_and_end_the_drive(make: Any) -> None:
    node = make(laps=2)
    reports(node, 5)
    assert node.driver.tick(0.0).decision.detail == "waits for the evaluator"
    assert told(node, hold="the marshal says so") == [True]
    tick = node.driver.tick(0.0)
    assert (tick.decision.reason, tick.decision.detail) == ("held", "the marshal says so")
    assert tick.command.accel_mps2 < 0.0
    assert told(node, hold="") == [True] and node.driver.tick(0.0).decision.reason != "held"
    assert told(node, laps_done=1.0) == [True] and not node.termination.complete
    for wrong in ({"hold": 3}, {"laps_done": math.nan}, {"laps_done": -1.0}, {"laps_done": 1e300}, {"end": True}):
        assert told(node, **wrong) == [False]
    assert told(node, laps_done=2.0) == [True] and node.termination.complete
    assert told(node, end="the session is finished") == [True] and node.termination.goal
    assert told(node, folder="/") == [False], "which is read only"
    node.destroy_node()


def test_nobody_who_tells_it_to_wait_is_waited_for_a_moment_only(make: Any) -> None:
    node = make()
    reports(node, 5)
    for now_s, held in ((2.9, True), (3.1, False), (30.0, False)):
        node.inputs.orders.tick(now_s)
        assert (node.driver.tick(now_s).decision.reason == "held") == held
    node.destroy_node()


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    message_class(topics.CONTROL_CMD.type)
    domain = Domain(tmp_path)
    yield domain
    domain.close()


def circle_of(folder: Path) -> Path:
    """A course on which the plans of a left circle lie."""
    rows = ["x,y,z,x_quat,y_quat,z_quat,w_quat,speed"]
    for angle in np.linspace(0.0, 2.0 * np.pi, 100, endpoint=False):
        half = (angle + np.pi / 2.0) / 2.0
        rows.append(f"{8 * np.cos(angle)},{8 * np.sin(angle)},0,0,0,{np.sin(half)},{np.cos(half)},3")
    (folder / "circle.csv").write_text("\n".join(rows) + "\n")
    return folder / "circle.csv"


POLICY = {"policy": "tests.helpers.constant_curvature:LeftCircle", "use_sim_time": True, "off_road_s": 0.0}


def test_a_lap_from_the_grid_by_wheels_alone_is_counted_and_measured_by_the_evaluator(
    domain: Domain, tmp_path: Path
) -> None:
    out, log, course = tmp_path / "drive", tmp_path / "truth.npz", circle_of(tmp_path)
    simulator = domain.simulator(expert=False, course=course, time_scale=1.5, countdown_s=6.0, log=log, **SMALL)
    evaluator = domain.start("closed_loop.ros.evaluator_node", course=course, laps=1)
    driver = domain.start("closed_loop.ros.drive_node", out=out, course=course, laps=1, duration_s=60.0, **POLICY)
    assert driver.wait(60.0) == 0, driver.output
    assert evaluator.interrupt() == 0
    assert simulator.interrupt() == 0
    assert "told to wait" in driver.output and "told to go" in driver.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["complete"] and metrics["laps"] == 1 and "1 of 1 laps" in metrics["ended"]
    truth = np.load(log)
    assert truth["speed_mps"][truth["t_s"] < 6.0].max() == 0.0
    assert truth["commands"][truth["t_s"] < 5.5, 1].max() <= 0.0, "the brake is held until the start"
    saved = np.load(out / "drive.npz")
    assert "poses_map" not in saved and len(saved["poses_odom"]) > 300
    drive = measure_drive(out)
    # The plans are the circle itself, drawn from where the kart is: errors of the loop add up unseen.
    assert drive.summary["on_curves"]["max_m"] < 0.6 and drive.summary["laps_finished"] == 1
    assert f"max {drive.summary['on_curves']['max_m']:.2f} m" in evaluator.output
    (out / "truth.npz").unlink()
    with pytest.raises(MonoError, match="wheels only"):
        measure_drive(out)


def test_the_end_to_end_session_is_driven_to_its_finish(domain: Domain, tmp_path: Path) -> None:
    out, course = tmp_path / "drive", circle_of(tmp_path)
    words = {"mode": "e2e", "time_scale": 1.5, "session_laps": 1}
    simulator = domain.simulator(expert=False, course=course, **words, **SMALL)
    evaluator = domain.start("closed_loop.ros.evaluator_node", course=course, laps=0)
    driver = domain.start("closed_loop.ros.drive_node", out=out, course=course, laps=0, duration_s=60.0, **POLICY)
    driver.wait_for("drive ended: the session is finished", 60.0)
    driver.wait()
    assert evaluator.interrupt() == 0 and simulator.interrupt() == 0
    assert f"nobody published {topics.ODOMETRY.name}" in evaluator.output
    assert json.loads((out / "metrics.json").read_text())["laps"] == 1
