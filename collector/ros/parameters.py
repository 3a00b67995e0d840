"""Settings of the nodes and of the verbs that start them, each with its name, default, range and help once.

The launch files (:mod:`collector.ros.launch_description`), ``alpamayo-mono record`` and the nodes (their ROS
parameters) read these dataclasses. Only the standard library is needed. What drives the kart is described in
:mod:`closed_loop.ros.config`.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from collector.common.arguments import MOST_SEED, Arguments, Value, argument, arguments_of
from collector.common.errors import MonoError
from collector.common.files import with_homes
from collector.reasoning.manners import read_manner
from collector.ros.topics import FamilyAsked

if TYPE_CHECKING:
    from rclpy.node import Node

DRAWN_MANNER = "draw"
LONGEST_S = 1e7  # of whatever runs for a while: four months
Rules = Literal["e2e", "free"]
Parameters = TypeVar("Parameters", bound=Arguments)


@dataclass(frozen=True)
class Program:
    """A node to start as ``python -m MODULE --ros-args ...``; its ROS parameters are the fields of ``parameters``."""

    name: str
    module: str
    parameters: type[Arguments]
    switch: str = ""  # of a program beside the main one: the setting that starts it
    check: str = ""  # `"module:function"`, given the verb's settings before any process starts; raises a MonoError

    def check_settings(self, settings: Arguments) -> None:
        """Refuse (MonoError) settings that this node could not start with."""
        if self.check:
            module, _, function = self.check.partition(":")
            getattr(importlib.import_module(module), function)(settings)


def started(settings: Arguments, main: Program, *beside: Program) -> list[Program]:
    """The programs of a verb that these settings start: the main one first."""
    return [main, *(each for each in beside if getattr(settings, each.switch, False))]


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
class MessageParameters(Arguments):
    """What every node needs to understand the others."""

    messages: FamilyAsked = argument(
        "detect",
        "Autoware's message packages: autoware_auto (the Challenge's), autoware (newer stacks'), or detect: those that "
        "the others on the ROS graph use; the embedded simulator then takes what is installed",
    )


@dataclass(frozen=True)
class RunParameters(Duration, MessageParameters):
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
    vehicle: str = argument("", "YAML of the kart, as alpamayo-mono identify writes it; empty is the Challenge's kart")


@dataclass(frozen=True)
class RulesParameters(Arguments):
    """By what a kart is driven."""

    rules: Rules = argument(
        "e2e",
        "what the driver hears: e2e, camera, wheels and gear only (as the end-to-end class demands) with poses of dead "
        "reckoning; free, the localisation's poses",
    )


@dataclass(frozen=True)
class SimulatorParameters(RoadParameters, MessageParameters):
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
    mode: Literal["dev", "e2e"] = argument(
        "dev",
        "dev: the kart's pose is published, as with AWSIM's dev script; e2e: as with its end-to-end script there is "
        "none, a picture comes every 105 ms, a standing kart moves off from 0.4 m/s^2 on only, heading rates are "
        "garbage now and then, and the wheels turn by 0.6 of what is asked",
    )
    simulated_vehicle: str = argument(
        "", "YAML of the kart that is moved, where it is to be another than the driver knows; empty takes vehicle"
    )
    countdown_s: float = argument(
        0.0,
        "simulated seconds on the grid: /awsim/state says Spawned, Grounded, Ready, and the kart is held until Start; "
        "0 starts at once",
        0.0,
        600.0,
    )
    session_laps: int = argument(0, "laps after which /awsim/state says Finish; 0 never", 0, 1000)
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


def check_record(settings: RecordParameters) -> None:
    """Refuse (MonoError) a folder that cannot take a bag."""
    from collector.common.output_folder import OutputFolder

    if settings.out:
        with OutputFolder(settings.out) as folder:  # the node takes it for good
            folder.require_empty(do="choose another out:=")


RECORD_NODE = Program("record_node", "collector.recording.node", RecordParameters, check=f"{__name__}:check_record")


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
