"""The interface table against the Challenge's specification, written down a second time."""

from __future__ import annotations

import pytest

from collector.ros import topics as stack
from collector.ros.topics import ALL_TOPICS, RECORDED, Topic, qos_profile

# name: (type, reliability, durability, depth)
CHALLENGE = {
    "/sensing/camera/image_raw": ("sensor_msgs/msg/Image", "best_effort", "volatile", 1),
    "/sensing/camera/camera_info": ("sensor_msgs/msg/CameraInfo", "best_effort", "volatile", 1),
    "/vehicle/status/velocity_status": ("autoware_auto_vehicle_msgs/msg/VelocityReport", "reliable", "volatile", 1),
    "/vehicle/status/steering_status": ("autoware_auto_vehicle_msgs/msg/SteeringReport", "reliable", "volatile", 1),
    "/vehicle/status/gear_status": ("autoware_auto_vehicle_msgs/msg/GearReport", "reliable", "volatile", 1),
    "/vehicle/status/control_mode": ("autoware_auto_vehicle_msgs/msg/ControlModeReport", "reliable", "volatile", 1),
    "/clock": ("rosgraph_msgs/msg/Clock", "best_effort", "volatile", 1),
    "/awsim/status": ("std_msgs/msg/Float32MultiArray", "reliable", "volatile", 1),
    "/awsim/state": ("std_msgs/msg/String", "reliable", "transient_local", 1),
    "/tf_static": ("tf2_msgs/msg/TFMessage", "reliable", "transient_local", 1),
    "/localization/kinematic_state": ("nav_msgs/msg/Odometry", "reliable", "volatile", 1),
    "/control/command/control_cmd": (
        "autoware_auto_control_msgs/msg/AckermannControlCommand",
        "reliable",
        "volatile",
        1,
    ),
    "/control/command/gear_cmd": ("autoware_auto_vehicle_msgs/msg/GearCommand", "reliable", "volatile", 1),
    "/awsim/control_mode_request_topic": ("std_msgs/msg/Bool", "reliable", "volatile", 1),
    "/awsim/reset": ("std_msgs/msg/Empty", "reliable", "volatile", 1),
    "/planning/scenario_planning/trajectory": (
        "autoware_auto_planning_msgs/msg/Trajectory",
        "best_effort",
        "volatile",
        1,
    ),
}


def test_table_is_the_challenges() -> None:
    ours = {topic.name: (topic.type, topic.reliability, topic.durability, topic.depth) for topic in ALL_TOPICS}
    assert {name: ours.get(name) for name in CHALLENGE} == CHALLENGE
    # Whatever else we publish must not look like the organiser's.
    for name in set(ours) - set(CHALLENGE):
        assert name.startswith("/planning/alpamayo/") or name in (
            "/sensing/camera/image_raw/compressed",
            "/diagnostics",
        )


def test_every_topic_of_the_module_is_in_the_list_once() -> None:
    constants = [value for value in vars(stack).values() if isinstance(value, Topic)]
    assert sorted(topic.name for topic in constants) == sorted(topic.name for topic in ALL_TOPICS)
    assert len({topic.name for topic in ALL_TOPICS}) == len(ALL_TOPICS)


def test_recording_holds_what_the_organisers_recorder_leaves_out() -> None:
    names = {topic.name for topic in RECORDED}
    assert {
        "/localization/kinematic_state",
        "/vehicle/status/velocity_status",
        "/sensing/camera/camera_info",
        "/clock",
        "/tf_static",
        "/control/command/control_cmd",
    } <= names
    assert "/sensing/camera/image_raw" not in names, "raw frames lose a third of themselves; JPEG is stored"


@pytest.mark.ros
def test_qos_profiles() -> None:
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    for topic in ALL_TOPICS:
        profile = qos_profile(topic)
        assert (profile.reliability is ReliabilityPolicy.BEST_EFFORT) == (topic.reliability == "best_effort")
        assert (profile.durability is DurabilityPolicy.TRANSIENT_LOCAL) == (topic.durability == "transient_local")
        assert profile.depth == topic.depth
        assert qos_profile(topic, depth=50).depth == 50
