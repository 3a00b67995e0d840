"""Settings of the nodes and of the verbs that start them, each with its name, default, range and help once.

The launch files (:func:`describe`), ``alpamayo-mono record`` and the nodes (their ROS parameters) read these
dataclasses. Only the standard library is needed; ``launch`` and ``launch_ros`` come with a ROS installation, and
without one the verbs start the same processes. What drives the kart is described in :mod:`closed_loop.ros.config`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from collector.common.arguments import MOST_SEED, Arguments, Value, argument, arguments_of
from collector.common.errors import MonoError
from collector.common.files import with_homes
from collector.common.start import module_command, without_working_folder
from collector.reasoning.manners import read_manner

if TYPE_CHECKING:
    from launch import LaunchDescription
    from launch_ros import actions
    from rclpy.node import Node

DRAWN_MANNER = "draw"
LONGEST_S = 1e7  # of whatever runs for a while: four months
Parameters = TypeVar("Parameters", bound=Arguments)


@dataclass(frozen=True)
class Program:
    """A node to start as ``python -m MODULE --ros-args ...``; its ROS parameters are the fields of ``parameters``."""

    name: str
    module: str
    parameters: type[Arguments]


@dataclass(frozen=True)
class SimulatorBeside(Arguments):
    """For verbs that start the simulator on request."""

    simulator: bool = argument(
        False, "true starts the embedded simulator too; false expects AWSIM (or a simulator elsewhere) to be running"
    )


@dataclass(frozen=True)
class Duration(Arguments):
    """How long a node runs."""

    duration_s: float = argument(
        0.0,
        "stop after this many seconds of simulated time; 0 runs until Ctrl-C (record, simulate) or the last lap "
        "(drive)",
        0.0,
        LONGEST_S,
    )


@dataclass(frozen=True)
class RunParameters(Duration):
    """What recording and driving share."""

    out: str = argument(
        "",
        "folder of the result; empty makes runs/<date-time>-record (the bag) or runs/<date-time>-drive (log, metrics)",
    )
    use_sim_time: bool = argument(True, "follow /clock; false only for a real vehicle")
    wait_s: float = argument(
        30.0,
        "give up with a sentence when no first frame (record) or no first state (drive) came after this many seconds "
        "of wall time",
        0.1,
        LONGEST_S,
    )


@dataclass(frozen=True)
class RecordParameters(RunParameters):
    """Parameters of the recording node."""

    jpeg_quality: int = argument(90, "quality of the stored frames", 1, 100)
    image_scale: float = argument(
        1.0,
        "stored size of a frame over the camera's, averaged over areas; CameraInfo is rewritten to fit, nothing else "
        "changes",
        0.05,
        1.0,
    )
    queue_frames: int = argument(
        64, "frames that may wait for compression before one is dropped (6 MB each at 1920x1080)", 1, 1000
    )
    jpeg_workers: int = argument(2, "compression threads", 1, 64)
    max_loss: float = argument(
        0.02,
        "share of a topic's expected messages that may be missing; above it the exit code is not 0 (the bag stays). "
        "1 allows all",
        0.0,
        1.0,
    )
    split_mb: int = argument(4000, "begin a new file of the bag after so many megabytes; 0 never does", 0, 1_000_000)
    split_minutes: float = argument(
        0.0, "begin a new file of the bag after so many minutes of wall time; 0 never does", 0.0, 100_000.0
    )


@dataclass(frozen=True)
class RoadParameters(Arguments):
    """What simulator and driver share."""

    course: str = argument(
        "city",
        "course driven: a name such as city, city-mirror or random:7, or a file (raceline CSV, lane-boundary CSV, "
        "Lanelet2 .osm), read as FILE:open, FILE:half_width=1.5 or FILE:lanes=ID+ID say",
    )
    max_speed_mps: float = argument(5.0, "speed limit of expert and driver, m/s", 0.5, 20.0)


@dataclass(frozen=True)
class SimulatorParameters(RoadParameters):
    """Parameters of the embedded simulator that every verb offers; how long it runs, the verb's main node says."""

    courses: str = argument("", "comma-separated courses, the next one at each episode; empty stays on course")
    seed: int = argument(0, "seed of starts, disturbances and scenery", 0, MOST_SEED)
    episode_s: float = argument(
        0.0,
        "simulated seconds after which the kart is put back with a new offset and heading; 0 never does",
        0.0,
        LONGEST_S,
    )
    disturbance: float = argument(
        1.0,
        "scale of the expert's recovery lessons (start offsets, headings, steering noise); 0 drives cleanly",
        0.0,
        3.0,
    )
    manner: str = argument(
        "",
        "how the expert drives where the road allows several ways: words such as left, 'right slow', racing, stop or "
        "'out left', or draw for another one every few seconds; recorded with the bag. Empty drives as ever",
    )
    expert: bool = argument(True, "the built-in driver publishes control_cmd, as a team's own controller would")
    time_scale: float = argument(1.0, "simulated seconds per second of wall time", 0.05, 20.0)
    image_width: int = argument(640, "width of the rendered frames, pixels", 64, 1920)
    image_height: int = argument(360, "height of the rendered frames, pixels", 36, 1080)
    start_s_m: float = argument(0.0, "arc length of the first start on the course, metres", 0.0, 1e6)
    start_lateral_m: float = argument(
        0.0, "offset of the first start from the centreline, left positive, metres", -5.0, 5.0
    )
    start_heading_rad: float = argument(
        0.0, "heading of the first start against the course, left positive, radians", -1.5, 1.5
    )
    start_speed_mps: float = argument(0.0, "speed of the first start, m/s", 0.0, 10.0)
    camera: bool = argument(True, "false renders no frames, as AWSIM does with --camera off")
    camera_fail_after_s: float = argument(
        0.0, "simulated seconds after which the camera goes silent, a fault on purpose; 0 never", 0.0, LONGEST_S
    )
    drop_share: float = argument(0.0, "share of the camera frames that get lost, a fault on purpose", 0.0, 1.0)
    black_share: float = argument(0.0, "share of the camera frames that arrive black, a fault on purpose", 0.0, 1.0)
    position_noise_m: float = argument(
        0.0, "standard deviation of noise on the odometry's x and y, metres, a fault on purpose", 0.0, 10.0
    )
    yaw_noise_rad: float = argument(
        0.0, "standard deviation of noise on the odometry's yaw, radians, a fault on purpose", 0.0, 1.0
    )
    speed_noise_mps: float = argument(
        0.0, "standard deviation of noise on the odometry's speed, m/s, a fault on purpose", 0.0, 10.0
    )
    log: str = argument("", "file (.npz) for the simulator's own record of pose, speed and commands; empty writes none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.manner and not self.expert:
            found = f"manner:={self.manner} without the expert"
            raise MonoError(found, "expert:=true, who drives it", "leave manner out, or have the expert drive")
        if self.manner not in ("", DRAWN_MANNER):
            read_manner(self.manner)


@dataclass(frozen=True)
class SimulateConfig(SimulatorParameters, Duration):
    """Run the embedded simulator alone.

    It speaks AWSIM's topics, so other programs can record or drive in it. Examples:

    alpamayo-mono simulate course:=random:7 expert:=true

    alpamayo-mono simulate --course city --time-scale 2
    """


@dataclass(frozen=True)
class RecordConfig(SimulatorParameters, RecordParameters, SimulatorBeside):
    """Record front frames (as JPEG), poses and vehicle state to an mcap bag.

    From AWSIM or from the embedded simulator, until Ctrl-C or duration_s. Prints expected, received and lost frames at
    the end. Examples:

    alpamayo-mono record --out runs/lap1 (AWSIM is running)

    alpamayo-mono record simulator:=true duration_s:=120 episode_s:=20 (without AWSIM)
    """


RECORD_NODE = Program("record_node", "collector.recording.node", RecordParameters)


def parameter_values(program: Program, config: Arguments) -> dict[str, Value]:
    """What a node started by a verb is given: its share of the verb's settings."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(program.parameters)
        if hasattr(config, field.name)
    }


def declare_parameters(node: Node, parameters: type[Parameters]) -> Parameters:
    """Declare the parameters of an rclpy node with description and range, and return their values.

    Raises:
        MonoError: a value of the wrong type or out of range was given on the command line or in a file.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.exceptions import InvalidParameterValueException

    values: dict[str, Any] = {}
    for each in arguments_of(parameters):
        if node.has_parameter(each.name):  # use_sim_time: rclpy itself declares it
            values[each.name] = node.get_parameter(each.name).value
            continue
        # Dynamic typing lets a person write `wait_s: 5` for a float; the dataclass enforces the type.
        descriptor = ParameterDescriptor(description=each.help, read_only=True, dynamic_typing=True)
        if math.isfinite(each.minimum) and math.isfinite(each.maximum):
            integer, low, high = each.type is int, each.type(each.minimum), each.type(each.maximum)
            kind = IntegerRange if integer else FloatingPointRange
            limits = [kind(from_value=low, to_value=high, step=each.type(integer))]
            setattr(descriptor, "integer_range" if integer else "floating_point_range", limits)
        try:
            values[each.name] = node.declare_parameter(each.name, each.default, descriptor).value
        except InvalidParameterValueException as error:
            raise each.refusal(f"parameter {each.name} of {node.get_name()} is out of range") from error
    return with_homes(parameters(**values))


def describe(config: type[Arguments], main: Program, simulator: Program) -> LaunchDescription:
    """The main node, whose end ends the launch, and the embedded simulator beside it on ``simulator:=true``.

    Each of the verb's settings (``config``) becomes a launch argument.
    """
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, Shutdown
    from launch.conditions import IfCondition
    from launch.substitutions import LaunchConfiguration

    declared = []
    for each in arguments_of(config):
        default, choices = each.default_text, list(each.choices) or None
        declared.append(DeclareLaunchArgument(each.name, default_value=default, description=each.help, choices=choices))
    nodes = [
        _node(config, main, on_exit=Shutdown(reason=f"{main.name} has ended")),
        _node(config, simulator, condition=IfCondition(LaunchConfiguration("simulator"))),
    ]
    return LaunchDescription([*declared, *nodes])


def _node(config: type[Arguments], program: Program, **options: object) -> actions.Node:
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    wanted = {field.name for field in dataclasses.fields(program.parameters)}
    parameters = {
        # Without value_type launch would make `duration_s:=5` an integer and `out:=2026` a number.
        each.name: ParameterValue(LaunchConfiguration(each.name), value_type=each.type)
        for each in arguments_of(config)
        if each.name in wanted
    }
    # By module, not by package and executable: pip puts no scripts into lib/<package>, and this way the nodes run in
    # the Python that reads this file, under colcon and pip alike.
    executable, *words = module_command(program.module)
    shown: dict[str, object] = {"output": "screen", "emulate_tty": True, "additional_env": without_working_folder()}
    return Node(executable=executable, arguments=words, parameters=[parameters], **shown, **options)
