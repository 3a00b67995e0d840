"""The Automotive AI Challenge's ROS interface as one table: topics, types, QoS, rates and frames.

Everything in this project that publishes or subscribes takes its topic from here, so the embedded simulator and
AWSIM stay interchangeable. Values are those of the 2026 competition stack (ROS 2 Humble, autoware_auto messages).
Pure data: nothing of ROS is imported until :func:`qos_profile` is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile

# What rclpy calls a node whose endpoints are found before its name.
NO_NAME_YET = "_NODE_NAME_UNKNOWN_"
# A message of rclpy or rosbags: whatever has the fields of its type.
Message: TypeAlias = Any
Reliability = Literal["reliable", "best_effort"]
Durability = Literal["volatile", "transient_local"]
FamilyAsked = Literal["detect", "autoware_auto", "autoware"]  # which of Autoware's message packages to speak

MAP_FRAME = "map"
ODOM_FRAME = "odom"  # of dead reckoning: begins anywhere, and drifts
BASE_FRAME = "base_link"  # rear axle, on the ground, x forward, y left
CAMERA_FRAME = "camera_optical_link"  # z forward, x right, y down
CONTROL_HZ = 40.0  # rate of the commands
GEAR_REVERSES = (20, 21)  # of a gear report
GEAR_DRIVE = 2  # of GearCommand and GearReport
STANDING_MPS = 0.05  # a kart that is slower is taken to be at rest


@dataclass(frozen=True)
class Topic:
    """One topic of the interface, as its publisher offers it."""

    name: str
    type: str  # message type as `"package/msg/Name"`
    reliability: Reliability = "reliable"  # what the publisher offers; a subscriber may ask for the same or less
    durability: Durability = "volatile"  # `"transient_local"` for latched topics
    depth: int = 1  # queue length of the publisher; a recorder asks for a deeper one (`qos_profile`)
    rate_hz: float | None = None  # nominal rate, None for events and for topics whose rate the sender chooses
    frame_id: str = ""  # `header.frame_id` of the message, empty where it has no header


_VEHICLE = "autoware_auto_vehicle_msgs/msg/"

# From the simulator: AWSIM, or ours.
CAMERA_IMAGE = Topic(
    "/sensing/camera/image_raw", "sensor_msgs/msg/Image", "best_effort", rate_hz=10.0, frame_id=CAMERA_FRAME
)
CAMERA_INFO = Topic(
    "/sensing/camera/camera_info", "sensor_msgs/msg/CameraInfo", "best_effort", rate_hz=10.0, frame_id=CAMERA_FRAME
)
VELOCITY_STATUS = Topic(
    "/vehicle/status/velocity_status", _VEHICLE + "VelocityReport", rate_hz=30.0, frame_id=BASE_FRAME
)
STEERING_STATUS = Topic("/vehicle/status/steering_status", _VEHICLE + "SteeringReport", rate_hz=30.0)
GEAR_STATUS = Topic("/vehicle/status/gear_status", _VEHICLE + "GearReport", rate_hz=30.0)
CONTROL_MODE = Topic("/vehicle/status/control_mode", _VEHICLE + "ControlModeReport", rate_hz=30.0)
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock", "best_effort", rate_hz=100.0)
AWSIM_STATUS = Topic("/awsim/status", "std_msgs/msg/Float32MultiArray", rate_hz=10.0)
AWSIM_STATE = Topic("/awsim/state", "std_msgs/msg/String", "reliable", "transient_local")
TF_STATIC = Topic("/tf_static", "tf2_msgs/msg/TFMessage", "reliable", "transient_local")
# On the kart this one comes from the localisation (EKF), not from AWSIM; our simulator publishes its own truth.
ODOMETRY = Topic("/localization/kinematic_state", "nav_msgs/msg/Odometry", rate_hz=50.0, frame_id=MAP_FRAME)

# To the simulator.
CONTROL_CMD = Topic(
    "/control/command/control_cmd", "autoware_auto_control_msgs/msg/AckermannControlCommand", rate_hz=40.0
)
GEAR_CMD = Topic("/control/command/gear_cmd", _VEHICLE + "GearCommand")
CONTROL_MODE_REQUEST = Topic("/awsim/control_mode_request_topic", "std_msgs/msg/Bool")
AWSIM_RESET = Topic("/awsim/reset", "std_msgs/msg/Empty")

# Between the nodes of a team.
_TRAJECTORY = "autoware_auto_planning_msgs/msg/Trajectory"
SCENARIO_TRAJECTORY = Topic(
    "/planning/scenario_planning/trajectory", _TRAJECTORY, "best_effort", rate_hz=1.0, frame_id=MAP_FRAME
)

# Ours: what the recorder stores in place of raw images, and what the driver says about itself.
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_JPEG = Topic(f"{CAMERA_IMAGE.name}/compressed", _COMPRESSED, "best_effort", rate_hz=10.0, frame_id=CAMERA_FRAME)
PLANNED_PATH = Topic("/planning/alpamayo/path", "nav_msgs/msg/Path", frame_id=MAP_FRAME)
REASONING = Topic("/planning/alpamayo/reasoning", "std_msgs/msg/String")
# How the driver is, in the words that ROS has for it.
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
DRIVE_STATUS = Topic("/planning/alpamayo/status", "std_msgs/msg/String")  # one JSON object per message
# What the kart is asked to do where the road allows several things (collector.reasoning.manners): from our simulator's
# expert, or from whoever drives by hand.
MANNER = Topic("/planning/alpamayo/manner", "std_msgs/msg/String", depth=10)
# What an operator asks of a model that drives, in words (collector.reasoning.instructions).
INSTRUCTION = Topic("/planning/alpamayo/instruction", "std_msgs/msg/String", depth=10)

VEHICLE_STATUS = (VELOCITY_STATUS, STEERING_STATUS, GEAR_STATUS, CONTROL_MODE)
SIMULATOR_STATUS = (CLOCK, AWSIM_STATUS, AWSIM_STATE, TF_STATIC)
FROM_SIMULATOR = (CAMERA_IMAGE, CAMERA_INFO, *VEHICLE_STATUS, *SIMULATOR_STATUS, ODOMETRY)
TO_SIMULATOR = (CONTROL_CMD, GEAR_CMD, CONTROL_MODE_REQUEST, AWSIM_RESET)
FROM_DRIVER = (PLANNED_PATH, REASONING, DRIVE_STATUS, DIAGNOSTICS)
# The collector's bag, by the names and types it has inside the bag (frames arrive raw, are stored as JPEG).
RECORDED = (CAMERA_JPEG, CAMERA_INFO, ODOMETRY, *VEHICLE_STATUS, CONTROL_CMD, *SIMULATOR_STATUS)
MARKS = (MANNER,)  # recorded too where somebody sends them; nobody has to
ALL_TOPICS = (*FROM_SIMULATOR, *TO_SIMULATOR, SCENARIO_TRAJECTORY, CAMERA_JPEG, *FROM_DRIVER, *MARKS, INSTRUCTION)

# Meaning of the seven numbers in AWSIM_STATUS.data, in order.
AWSIM_STATUS_FIELDS = (
    *("session_time_left_s", "lap_count", "lap_time_s", "section"),
    *("time_scale", "boosts_left", "boosting"),
)
# What AWSIM_STATE says, in the order of a session.
AWSIM_STATES = ("Spawned", "Grounded", "Ready", "Start", "Finish")


def qos_profile(topic: Topic, depth: int | None = None) -> QoSProfile:
    """The rclpy profile of a topic (imports rclpy).

    A recorder asks for a deeper queue than the topic's, so that a busy moment costs no frame. Depth takes no part in
    matching publisher and subscriber.
    """
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=topic.depth if depth is None else depth,
        reliability=ReliabilityPolicy[topic.reliability.upper()],
        durability=DurabilityPolicy[topic.durability.upper()],
    )
