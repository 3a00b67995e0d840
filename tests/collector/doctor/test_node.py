"""The doctor over real ROS: real simulators and faulty nodes in processes, the command as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ros_processes import ROOT, Domain

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from collector.ros.message_packages import message_class  # noqa: E402
from collector.ros.topics import AWSIM_STATE, CONTROL_CMD, RECORDED, qos_profile  # noqa: E402

SECONDS = "1.5"


class Doctor:
    """A doctor at work; several listen at once."""

    def __init__(self, domain: Domain, *words: str, domain_id: int | None = None, seconds: str = SECONDS) -> None:
        environment = {**domain.environment, "ROS_DOMAIN_ID": str(domain.id if domain_id is None else domain_id)}
        fixed = ["--json", "--seconds", seconds, "--minutes", "0.1", "--out", str(domain.folder / "bag")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "closed_loop.cli", "doctor", *fixed, *words],
            env=environment,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def says(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code, and rows by name."""
        try:
            out, error = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert "Traceback" not in error and out, error
        return self.process.returncode, {row["name"]: row for row in json.loads(out)["rows"]}


def failed(rows: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, row in rows.items() if row["state"] == "failed"]


def wait_until_started(domain: Domain) -> None:
    """Until the simulator says so: on a busy machine that takes longer than a doctor waits for anybody."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain.id)
    node = rclpy.create_node("waiting", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    states: list[Any] = []
    node.create_subscription(message_class(AWSIM_STATE.type), AWSIM_STATE.name, states.append, qos_profile(AWSIM_STATE))
    deadline = time.monotonic() + 30.0
    while not states:
        assert time.monotonic() < deadline, domain.nodes[-1].output
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    message_class(CONTROL_CMD.type)  # a first build takes half a minute
    domain = Domain(tmp_path)
    yield domain
    domain.close()


def test_a_healthy_simulator_is_ready_to_be_recorded(domain: Domain) -> None:
    domain.simulator(image_width=320, image_height=180)
    wait_until_started(domain)
    recording, driving = Doctor(domain), Doctor(domain, "--for", "drive", "--own-policy")
    code, rows = recording.says()
    # A busy machine may be too slow for the simulator, and is told so.
    assert code == 0 and {row["state"] for name, row in rows.items() if name != "clock"} == {"ok"}, rows
    assert "320x180 bgr8, 10.0 Hz" in rows["camera"]["found"] and "50.0 Hz" in rows["odometry"]["found"]
    assert {row["topic"] for row in rows.values()} >= {topic.name for topic in RECORDED[1:]}
    assert "autoware_auto_control_msgs" in rows["messages"]["found"]
    assert f"ROS domain {domain.id}" in rows["middleware"]["found"] and "rmw_" in rows["middleware"]["found"]
    assert "kB a frame, 10.0 Hz" in rows["disk"]["found"]

    # Its expert drives: a second driver would fight it, and nobody listens to one.
    code, rows = driving.says()
    assert code == 1 and failed(rows) == ["other drivers", "control_cmd"], rows
    assert "simulator publishes it too" in rows["other drivers"]["found"]


def test_a_simulator_in_another_domain_is_found(domain: Domain) -> None:
    domain.simulator(camera=False)
    wait_until_started(domain)
    # Nobody's domain: those of the tests begin at 20. Several look at once, since an early packet is lost only
    # now and then.
    lost = [Doctor(domain, "--domains", "5", str(domain.id), domain_id=6 + number) for number in range(3)]
    for doctor in lost:
        code, rows = doctor.says()
        assert code == 1 and rows["simulator"]["cure"] == f"export ROS_DOMAIN_ID={domain.id}", rows


def test_a_camera_that_is_off_is_named_with_its_flag(domain: Domain) -> None:
    domain.simulator(camera=False, expert=False, time_scale=2.0)
    wait_until_started(domain)
    # A busy simulator makes up for 0.2 s at once: listen long enough that this does not pass for its pace.
    recording = Doctor(domain, seconds="5")
    driving = Doctor(domain, "--for", "drive", "--own-policy", seconds="5")
    for doctor in (recording, driving):
        code, rows = doctor.says()
        assert code == 1 and failed(rows) == ["camera"], rows
        assert "--camera gpu" in rows["camera"]["cure"]
        assert 0.5 < float(rows["clock"]["found"].split()[0]) < 2.2, rows
    # Ready but for the camera: the simulator listens, and nobody else drives.
    assert rows["control_cmd"]["found"] == "heard by simulator" and rows["other drivers"]["state"] == "ok"


def test_nobody_there_is_said_with_what_to_start(domain: Domain) -> None:
    code, rows = Doctor(domain, "--domains", str(domain.id)).says()
    assert code == 1 and failed(rows) == ["simulator", "camera", "odometry"], rows
    assert "alpamayo-mono simulate" in rows["simulator"]["cure"] and "--camera gpu" in rows["simulator"]["cure"]


def test_wrong_types_and_qos_are_named(domain: Domain) -> None:
    domain.start("tests.helpers.faulty_stack", faults="interface").wait_for("publishing")
    code, rows = Doctor(domain).says()
    assert code == 1 and failed(rows) == ["camera", "odometry", "clock"], rows
    assert "published as sensor_msgs/msg/CompressedImage by faulty" in rows["camera"]["found"]
    assert "faulty offers it best effort" in rows["odometry"]["found"]
    assert rows["odometry"]["cure"] == "let faulty publish it reliable"
    assert "paused" in rows["clock"]["found"]


def test_frames_lost_on_their_way_and_poses_that_are_none(domain: Domain) -> None:
    domain.start("tests.helpers.faulty_stack", faults="content").wait_for("publishing")
    code, rows = Doctor(domain).says()
    assert code == 1 and failed(rows) == ["messages", "camera", "odometry"], rows
    assert "lost on their way" in rows["camera"]["found"] and "PROFILES_FILE=" in rows["camera"]["cure"], rows
    assert "poses are not finite" in rows["odometry"]["found"]
    assert "VelocityReport on /vehicle/status/velocity_status differs from ours" in rows["messages"]["found"]


@pytest.mark.parametrize("variable", [{"RMW_IMPLEMENTATION": "rmw_nobody_cpp"}, {"ROS_DOMAIN_ID": "900"}])
def test_a_middleware_that_ends_the_process_does_not_end_the_doctor(domain: Domain, variable: dict[str, str]) -> None:
    domain.environment.update(variable)
    code, rows = Doctor(domain, domain_id=int(domain.environment["ROS_DOMAIN_ID"])).says()
    assert code == 1 and failed(rows) == ["ROS 2"] and rows["disk"]["state"] == "ok", rows
    assert next(iter(variable)) in rows["ROS 2"]["cure"]
