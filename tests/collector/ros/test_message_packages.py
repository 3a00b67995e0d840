"""The Challenge's message types: fields, constants, and a command crossing from process to process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.ros.message_builder import DEFINITIONS
from collector.ros.message_packages import main, message_class
from collector.ros.topics import ALL_TOPICS, CONTROL_CMD
from tests.helpers.paths import ROOT

TEXTS = {
    f"{path.parts[-3]}/msg/{path.stem}": path.read_text(encoding="utf-8") for path in DEFINITIONS.glob("*/msg/*.msg")
}
# The interface, written down a second time: a slip of the pen in a definition would cost the link to AWSIM.
TIME = "builtin_interfaces/Time stamp"
FIELDS = {
    "autoware_auto_control_msgs/msg/AckermannControlCommand": [
        TIME,
        "AckermannLateralCommand lateral",
        "LongitudinalCommand longitudinal",
    ],
    "autoware_auto_control_msgs/msg/AckermannLateralCommand": [
        TIME,
        "float32 steering_tire_angle",
        "float32 steering_tire_rotation_rate",
    ],
    "autoware_auto_control_msgs/msg/LongitudinalCommand": [
        TIME,
        "float32 speed",
        "float32 acceleration",
        "float32 jerk",
    ],
    "autoware_auto_vehicle_msgs/msg/SteeringReport": [TIME, "float32 steering_tire_angle"],
    "autoware_auto_vehicle_msgs/msg/VelocityReport": [
        "std_msgs/Header header",
        "float32 longitudinal_velocity",
        "float32 lateral_velocity",
        "float32 heading_rate",
    ],
    "autoware_auto_vehicle_msgs/msg/GearCommand": [TIME, "uint8 command"],
    "autoware_auto_vehicle_msgs/msg/GearReport": [TIME, "uint8 report"],
    "autoware_auto_vehicle_msgs/msg/ControlModeReport": [TIME, "uint8 mode"],
    "autoware_auto_planning_msgs/msg/Trajectory": ["std_msgs/Header header", "TrajectoryPoint[<=10000] points"],
    "autoware_auto_planning_msgs/msg/TrajectoryPoint": [
        "builtin_interfaces/Duration time_from_start",
        "geometry_msgs/Pose pose",
        "float32 longitudinal_velocity_mps",
        "float32 lateral_velocity_mps",
        "float32 acceleration_mps2",
        "float32 heading_rate_rps",
        "float32 front_wheel_angle_rad",
        "float32 rear_wheel_angle_rad",
    ],
    "tf2_msgs/msg/TFMessage": ["geometry_msgs/TransformStamped[] transforms"],
}
GEARS = {
    "NONE": 0,
    "NEUTRAL": 1,
    "DRIVE": 2,
    "DRIVE_2": 3,
    "DRIVE_18": 19,
    "REVERSE": 20,
    "REVERSE_2": 21,
    "PARK": 22,
    "LOW": 23,
    "LOW_2": 24,
}
MODES = {
    "NO_COMMAND": 0,
    "AUTONOMOUS": 1,
    "AUTONOMOUS_STEER_ONLY": 2,
    "AUTONOMOUS_VELOCITY_ONLY": 3,
    "MANUAL": 4,
    "DISENGAGED": 5,
    "NOT_READY": 6,
}


def test_definitions_are_the_interface() -> None:
    assert set(TEXTS) == set(FIELDS)
    for name, fields in FIELDS.items():
        lines = [line.split("#")[0].strip() for line in TEXTS[name].splitlines()]
        assert [line for line in lines if line and "=" not in line.replace("<=", "")] == fields


def test_definitions_are_readable_for_rosbags() -> None:
    from rosbags.typesys import get_types_from_msg

    for name, text in TEXTS.items():
        assert name in get_types_from_msg(text, name)


@pytest.mark.parametrize("name", ["String", "std_msgs/String", "std_msgs/srv/String", "std-msgs/msg/String", ""])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(MonoError, match="package/msg/Name"):
        message_class(name)


def test_unknown_package_says_what_to_source() -> None:
    with pytest.raises(MonoError, match=r"nowhere_msgs.*setup.bash"):
        message_class("nowhere_msgs/msg/Thing")


def test_installed_packages_are_never_shadowed(tmp_path: Path) -> None:
    """Where a workspace brings Autoware's packages, those are used, and nothing is built."""
    package = tmp_path / "autoware_auto_control_msgs" / "msg"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("class AckermannControlCommand: pass\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; from collector.ros.message_packages import message_class\n"
                "print(sys.modules[message_class('autoware_auto_control_msgs/msg/AckermannControlCommand').__module__].__file__)\n"
                "try: message_class('autoware_auto_control_msgs/msg/LongitudinalCommand')\n"
                "except Exception as error: print(type(error).__name__, error)"
            ),
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == str(package / "__init__.py")
    assert second.startswith("MonoError") and "LongitudinalCommand" in second
    assert not (tmp_path / "cache").exists()


@pytest.mark.ros
def test_every_topic_has_its_class() -> None:
    for topic in ALL_TOPICS:
        assert message_class(topic.type).__name__ == topic.type.rpartition("/")[2]
    gears = message_class("autoware_auto_vehicle_msgs/msg/GearReport")
    assert {name: getattr(gears, name) for name in GEARS} == GEARS
    assert {name: getattr(message_class("autoware_auto_vehicle_msgs/msg/GearCommand"), name) for name in GEARS} == GEARS
    modes = message_class("autoware_auto_vehicle_msgs/msg/ControlModeReport")
    assert {name: getattr(modes, name) for name in MODES} == MODES


@pytest.mark.ros
def test_verb_lists_where_packages_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr().out
    listed = {line.split()[0] for line in output.splitlines() if "  installed " in line or "  built by us " in line}
    assert listed >= {topic.type.split("/")[0] for topic in ALL_TOPICS}
    assert f"all {len(ALL_TOPICS)} topics" in output


LISTENER = """
import sys, time, rclpy
from collector.ros.message_packages import message_class
from collector.ros.topics import CONTROL_CMD, qos_profile
rclpy.init()
node, got = rclpy.create_node("listener"), []
node.create_subscription(message_class(CONTROL_CMD.type), CONTROL_CMD.name, got.append, qos_profile(CONTROL_CMD))
print("listening", flush=True)
deadline = time.monotonic() + 30
while not got and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.2)
for message in got[:1]:
    print(message.stamp.sec, message.lateral.steering_tire_angle, message.longitudinal.acceleration)
"""


@pytest.mark.ros
def test_a_command_crosses_processes(ros_environment: dict[str, str]) -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from collector.ros.topics import qos_profile

    command = message_class(CONTROL_CMD.type)()
    command.stamp.sec = 42
    command.lateral.steering_tire_angle = -0.25
    command.longitudinal.acceleration = 0.5
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER],
        env={**ros_environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("commander", context=context)
        publisher = node.create_publisher(type(command), CONTROL_CMD.name, qos_profile(CONTROL_CMD))
        while listener.poll() is None:
            publisher.publish(command)
            try:
                listener.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    except ExternalShutdownException:
        pytest.fail("ROS went away")
    finally:
        listener.kill()
        rclpy.shutdown(context=context)
    assert listener.stdout is not None
    assert listener.stdout.read().splitlines() == ["listening", "42 -0.25 0.5"]
