"""The simulator speaks the Challenge's interface: names, types, QoS, frames, and what it does with what it hears."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.ros_processes import Domain

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402

from closed_loop.simulator.node import STANDSTILL, Heard, log_place, obeyed, world_config  # noqa: E402
from closed_loop.simulator.publishing import quaternion_of  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.ros.conversions import odometry_of, rgb_of, stamp_ns_of  # noqa: E402
from collector.ros.message_packages import message_class  # noqa: E402
from collector.ros.parameters import SimulateConfig  # noqa: E402
from collector.ros.topics import (  # noqa: E402
    AWSIM_RESET,
    AWSIM_STATE,
    AWSIM_STATUS,
    CAMERA_FRAME,
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    CONTROL_CMD,
    CONTROL_MODE,
    CONTROL_MODE_REQUEST,
    FROM_SIMULATOR,
    ODOMETRY,
    TF_STATIC,
    TO_SIMULATOR,
    Topic,
    qos_profile,
)
from collector.vehicle.kart import Command  # noqa: E402


class Listener:
    """A participant of our own in the test's domain: hears everything, can speak."""

    def __init__(self, domain: Domain) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain.id)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[Topic, list[Any]] = {topic: [] for topic in FROM_SIMULATOR}
        for topic, messages in self.heard.items():
            self.node.create_subscription(
                message_class(topic.type), topic.name, messages.append, qos_profile(topic, 50)
            )
        self.outputs = {
            topic: self.node.create_publisher(message_class(topic.type), topic.name, qos_profile(topic))
            for topic in TO_SIMULATOR
        }

    def until(self, variant: Callable[[], Any], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not variant():
            assert time.monotonic() < deadline, {topic.name: len(got) for topic, got in self.heard.items()}
            self.executor.spin_once(timeout_sec=0.05)

    def say(self, topic: Topic, **fields: Any) -> None:
        self.outputs[topic].publish(message_class(topic.type)(**fields))

    def command(self, steer_rad: float, accel_mps2: float) -> None:
        message = message_class(CONTROL_CMD.type)()
        message.lateral.steering_tire_angle, message.longitudinal.acceleration = steer_rad, accel_mps2
        self.outputs[CONTROL_CMD].publish(message)

    def speed_mps(self) -> float:
        return float(odometry_of(self.heard[ODOMETRY][-1])[2])

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    message_class(CONTROL_CMD.type)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    domain = Domain(tmp_path)
    yield domain
    domain.close()


@pytest.fixture
def listener(domain: Domain) -> Iterator[Listener]:
    listener = Listener(domain)
    yield listener
    listener.close()


def test_it_offers_what_the_interface_says_and_obeys_only_when_asked(domain: Domain, listener: Listener) -> None:
    simulator = domain.simulator(expert=False, image_width=320, image_height=180, start_s_m=10.0, time_scale=2.0)
    heard = listener.heard
    listener.until(lambda: all(heard.values()) and len(heard[CAMERA_IMAGE]) >= 3)

    for topic in FROM_SIMULATOR:
        (offer,) = listener.node.get_publishers_info_by_topic(topic.name)
        assert offer.topic_type == topic.type
        reliable = offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        latched = offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert (reliable, latched) == (topic.reliability == "reliable", topic.durability == "transient_local")
        if topic.frame_id:
            assert heard[topic][-1].header.frame_id == topic.frame_id
    assert heard[AWSIM_STATE][-1].data == "Start"
    assert len(heard[AWSIM_STATUS][-1].data) == 7 and heard[AWSIM_STATUS][-1].data[4] == 2.0
    assert not listener.node.get_publishers_info_by_topic(CONTROL_CMD.name)[1:]

    image, info = heard[CAMERA_IMAGE][-1], heard[CAMERA_INFO][-1]
    assert (image.encoding, image.width, image.height, info.width) == ("bgr8", 320, 180, 320)
    pixels = rgb_of(image)
    assert pixels[:20].mean() > pixels[-20:].mean()  # sky above road
    assert info.k[0] == pytest.approx(160.0) and info.distortion_model == "plumb_bob"
    assert {stamp_ns_of(message.header.stamp) % 100_000_000 for message in heard[CAMERA_IMAGE]} == {10_000_000}
    (mount,) = heard[TF_STATIC][-1].transforms
    assert mount.child_frame_id == CAMERA_FRAME and mount.transform.translation.z == pytest.approx(0.7)
    rotation = mount.transform.rotation
    np.testing.assert_allclose([rotation.x, rotation.y, rotation.z, rotation.w], [-0.5, 0.5, -0.5, 0.5], atol=1e-6)

    # Deaf before the request, then obedient, and holding on to the last command.
    listener.command(0.0, 1.0)
    clock_ns = stamp_ns_of(heard[CLOCK][-1].clock)
    listener.until(lambda: stamp_ns_of(heard[CLOCK][-1].clock) > clock_ns + 500_000_000)
    assert listener.speed_mps() == 0.0 and heard[CONTROL_MODE][-1].mode == 4
    listener.say(CONTROL_MODE_REQUEST, data=True)
    listener.until(lambda: listener.speed_mps() > 1.0)
    assert heard[CONTROL_MODE][-1].mode == 1
    start = odometry_of(heard[ODOMETRY][0])[1]
    listener.say(AWSIM_RESET)
    listener.until(lambda: listener.speed_mps() == 0.0)
    np.testing.assert_allclose(odometry_of(heard[ODOMETRY][-1])[1], start, atol=1e-6)
    assert heard[CONTROL_MODE][-1].mode in (1, 4)
    assert simulator.interrupt() == 0
    listener.until(lambda: heard[AWSIM_STATE][-1].data == "Finish", 5.0)


def test_out_of_gear_nothing_drives_but_the_brake_works() -> None:
    go = Command(0.1, 1.0)
    assert obeyed(Heard(None, 2, True)) == STANDSTILL
    assert obeyed(Heard(go, 2, False)) == STANDSTILL
    assert obeyed(Heard(go, 2, True)) == go
    assert obeyed(Heard(go, 1, True)) == Command(0.1, 0.0)
    assert obeyed(Heard(Command(0.1, -2.0), 20, True)) == Command(0.1, -2.0)


def test_disturbance_scales_every_error() -> None:
    values = SimulateConfig(disturbance=0.0, episode_s=17.0)
    clean = world_config(values)
    assert clean.start_lateral_m == clean.start_heading_rad == clean.disturbed_share == 0.0
    assert clean.disturbance.speed_scale == (1.0, 1.0) and clean.episode_s == 17.0
    full = world_config(replace(values, disturbance=1.0))
    assert full.start_lateral_m > 0.5 and full.disturbed_share > 0.3 and full.disturb_every_s is None
    endless = world_config(SimulateConfig())
    assert endless.episode_s is None and endless.disturb_every_s
    assert world_config(SimulateConfig(expert=False)).disturb_every_s is None


def test_quaternions_turn_as_their_matrices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        matrix[:, 0] *= np.sign(np.linalg.det(matrix))
        x, y, z, w = quaternion_of(matrix)
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        np.testing.assert_allclose(np.eye(3) + 2 * w * skew + 2 * skew @ skew, matrix, atol=1e-9)


def test_the_record_goes_only_over_one_of_its_own(tmp_path: Path) -> None:
    assert log_place(tmp_path / "new" / "drive") == tmp_path / "new" / "drive.npz"
    empty = np.zeros(0)
    np.savez(tmp_path / "ours.npz", t_s=empty, poses_map=empty, speed_mps=empty, commands=empty, laps=empty)
    assert log_place(tmp_path / "ours.npz") == tmp_path / "ours.npz"
    np.savez(tmp_path / "theirs.npz", weights=empty)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "ours.npz").read_bytes()[:40])
    (tmp_path / "text.npz").write_text("mine")
    for name in ("theirs", "torn", "text"):
        with pytest.raises(MonoError, match="no record of the simulator"):
            log_place(tmp_path / name)
    with pytest.raises(MonoError, match="Do: "):
        log_place(tmp_path / "text.npz" / "inside")
