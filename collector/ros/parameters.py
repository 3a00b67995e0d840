"""One table of the arguments of recording, driving and simulating.

The launch files (``ros2 launch collector record.launch.py``), our own command line (``alpamayo-mono record``, for
machines without ROS) and the nodes (their ROS parameters) all read this table: a name, a default or a help text
exists once. A value has the type of its default: bool, int, float or str.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from collector.common.errors import MonoError

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str
Verb = Literal["record", "drive", "simulate"]
NodeName = Literal["record_node", "drive_node", "simulator"]

# Python module behind each node: ``python -m MODULE --ros-args ...`` runs it.
NODE_MODULES: Mapping[NodeName, str] = MappingProxyType(
    {
        "record_node": "collector.recording.node",
        "drive_node": "closed_loop.ros.drive_node",
        "simulator": "closed_loop.simulator.node",
    }
)
# The node a verb exists for: when it ends, the verb ends. record and drive start the simulator on request.
MAIN_NODE: Mapping[Verb, NodeName] = MappingProxyType(
    {"record": "record_node", "drive": "drive_node", "simulate": "simulator"}
)


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        name: argument and ROS parameter name.
        default: its value when not given; fixes the type.
        help: one sentence with the unit and the meaning of zero or empty.
        nodes: the nodes that receive it as a parameter; empty for what only the launcher looks at.
        verbs: restricts the verbs; empty means every verb that may start one of ``nodes``.
        verb_defaults: other defaults for single verbs.
        choices: allowed texts, empty for any.
        minimum: smallest allowed number, included.
        maximum: largest allowed number, included.
        main_only: only the verb's main node receives it, not a simulator started beside it.
    """

    name: str
    default: Value
    help: str
    nodes: tuple[NodeName, ...] = ()
    verbs: tuple[Verb, ...] = ()
    verb_defaults: Mapping[Verb, Value] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    minimum: float = -math.inf
    maximum: float = math.inf
    main_only: bool = False

    @property
    def type(self) -> type:
        """bool, int, float or str."""
        return type(self.default)

    def used_by(self, verb: Verb) -> bool:
        """Whether this verb takes the argument."""
        if self.verbs:
            return verb in self.verbs
        return MAIN_NODE[verb] in self.nodes or "simulator" in self.nodes

    def default_for(self, verb: Verb) -> Value:
        """The default under this verb."""
        return self.verb_defaults.get(verb, self.default)

    def parse(self, text: str) -> Value:
        """A typed value from the command line's text.

        Raises:
            MonoError: not of the type, not one of the choices, or out of range.
        """
        try:
            value = _parse(text, self.type)
        except ValueError as error:
            raise MonoError(f"{self.name}:={text}", f"a value of type {self.type.__name__}", self.help) from error
        self.check(value)
        return value

    def coerce(self, value: Any) -> Any:
        """A ROS parameter's value in the table's type (a whole number serves as a float), checked.

        Raises:
            MonoError: not of the type, not one of the choices, or out of range.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        # Compared exactly: for isinstance a bool would also be an int.
        given = type(value)
        if given is not self.type:
            raise MonoError(f"{self.name}:={value!r}", f"a value of type {self.type.__name__}", self.help)
        self.check(value)
        return value

    def check(self, value: Value) -> None:
        """Refuse a value outside the choices or the range (MonoError)."""
        if self.choices and value not in self.choices:
            raise MonoError(f"{self.name}:={value}", "one of " + ", ".join(self.choices), self.help)
        if isinstance(value, (int, float)) and not self.minimum <= value <= self.maximum:
            raise MonoError(f"{self.name}:={value}", f"{self.minimum:g} to {self.maximum:g}", self.help)


_TRUE, _FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")


def _parse(text: str, kind: type) -> Value:
    if kind is bool:
        lowered = text.strip().lower()
        if lowered not in _TRUE + _FALSE:
            raise ValueError(text)
        return lowered in _TRUE
    if kind is int:
        return int(text)
    if kind is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    return text


ARGUMENTS: tuple[Argument, ...] = (
    # The launcher's own.
    Argument(
        "simulator",
        False,
        "true starts the embedded simulator too; false expects AWSIM (or a simulator elsewhere) to be running",
        verbs=("record", "drive"),
    ),
    # Shared.
    Argument(
        "out",
        "",
        "folder of the result; empty makes runs/<date-time>-record (the bag) or runs/<date-time>-drive (log, metrics)",
        nodes=("record_node", "drive_node"),
        verbs=("record", "drive"),
    ),
    Argument(
        "duration_s",
        0.0,
        "stop after this many seconds of simulated time; 0 runs until Ctrl-C (record, simulate) or the last lap "
        "(drive)",
        nodes=("record_node", "drive_node", "simulator"),
        minimum=0.0,
        main_only=True,
    ),
    Argument(
        "use_sim_time",
        True,
        "follow /clock; false only for a real vehicle",
        nodes=("record_node", "drive_node"),
        verbs=("record", "drive"),
    ),
    Argument(
        "course",
        "city",
        "course driven: city, city-mirror, random:SEED, or a file (raceline CSV, lane-boundary CSV, Lanelet2 .osm)",
        nodes=("drive_node", "simulator"),
    ),
    Argument(
        "max_speed_mps",
        5.0,
        "speed limit of expert and driver, m/s",
        nodes=("drive_node", "simulator"),
        minimum=0.5,
        maximum=20.0,
    ),
    # The recorder.
    Argument(
        "jpeg_quality", 90, "quality of the stored frames, 1 to 100", nodes=("record_node",), minimum=1, maximum=100
    ),
    Argument(
        "image_scale",
        1.0,
        "stored size of a frame over the camera's, averaged over areas; CameraInfo is rewritten to fit, nothing else "
        "changes",
        nodes=("record_node",),
        minimum=0.05,
        maximum=1.0,
    ),
    Argument(
        "queue_frames",
        64,
        "frames that may wait for compression before one is dropped (6 MB each at 1920x1080)",
        nodes=("record_node",),
        minimum=1,
        maximum=1000,
    ),
    Argument("jpeg_workers", 2, "compression threads", nodes=("record_node",), minimum=1, maximum=64),
    Argument(
        "max_loss",
        0.02,
        "share of a topic's expected messages that may be missing; above it the exit code is not 0 (the bag stays). 1 "
        "allows all",
        nodes=("record_node",),
        minimum=0.0,
        maximum=1.0,
    ),
    Argument(
        "split_mb",
        4000,
        "begin a new file of the bag after so many megabytes; 0 never does",
        nodes=("record_node",),
        minimum=0,
        maximum=1_000_000,
    ),
    Argument(
        "split_minutes",
        0.0,
        "begin a new file of the bag after so many minutes of wall time; 0 never does",
        nodes=("record_node",),
        minimum=0.0,
        maximum=100_000.0,
    ),
    Argument(
        "wait_s",
        30.0,
        "give up with a sentence when no first frame (record) or no first state (drive) came after "
        "this many seconds of wall time",
        nodes=("record_node", "drive_node"),
        verbs=("record", "drive"),
        minimum=0.1,
    ),
    # The simulator.
    Argument(
        "courses",
        "",
        "comma-separated courses, the next one at each episode; empty stays on course",
        nodes=("simulator",),
    ),
    Argument("seed", 0, "seed of starts, disturbances and scenery", nodes=("simulator",), minimum=0, maximum=2**31 - 1),
    Argument(
        "episode_s",
        0.0,
        "simulated seconds after which the kart is put back with a new offset and heading; 0 never does",
        nodes=("simulator",),
        minimum=0.0,
    ),
    Argument(
        "disturbance",
        1.0,
        "scale of the expert's recovery lessons (start offsets, headings, steering noise); 0 drives cleanly",
        nodes=("simulator",),
        minimum=0.0,
        maximum=3.0,
        verb_defaults={"drive": 0.0},
    ),
    Argument(
        "expert",
        True,
        "the built-in driver publishes control_cmd, as a team's own controller would",
        nodes=("simulator",),
        verb_defaults={"drive": False},
    ),
    Argument(
        "time_scale", 1.0, "simulated seconds per second of wall time", nodes=("simulator",), minimum=0.05, maximum=20.0
    ),
    Argument(
        "image_width", 640, "width of the rendered frames, pixels", nodes=("simulator",), minimum=64, maximum=1920
    ),
    Argument(
        "image_height", 360, "height of the rendered frames, pixels", nodes=("simulator",), minimum=36, maximum=1080
    ),
    Argument(
        "start_s_m", 0.0, "arc length of the first start on the course, metres", nodes=("simulator",), minimum=0.0
    ),
    Argument(
        "start_lateral_m",
        0.0,
        "offset of the first start from the centreline, left positive, metres",
        nodes=("simulator",),
        minimum=-5.0,
        maximum=5.0,
    ),
    Argument(
        "start_heading_rad",
        0.0,
        "heading of the first start against the course, left positive, radians",
        nodes=("simulator",),
        minimum=-1.5,
        maximum=1.5,
    ),
    Argument("start_speed_mps", 0.0, "speed of the first start", nodes=("simulator",), minimum=0.0, maximum=10.0),
    Argument("camera", True, "false renders no frames, as AWSIM does with --camera off", nodes=("simulator",)),
    Argument(
        "camera_fail_after_s",
        0.0,
        "simulated seconds after which the camera goes silent, a fault on purpose; 0 never",
        nodes=("simulator",),
        minimum=0.0,
    ),
    Argument(
        "drop_share",
        0.0,
        "share of the camera frames that get lost, a fault on purpose",
        nodes=("simulator",),
        minimum=0.0,
        maximum=1.0,
    ),
    Argument(
        "black_share",
        0.0,
        "share of the camera frames that arrive black, a fault on purpose",
        nodes=("simulator",),
        minimum=0.0,
        maximum=1.0,
    ),
    Argument(
        "position_noise_m",
        0.0,
        "standard deviation of noise on the odometry's x and y, a fault on purpose",
        nodes=("simulator",),
        minimum=0.0,
        maximum=10.0,
    ),
    Argument(
        "yaw_noise_rad",
        0.0,
        "standard deviation of noise on the odometry's yaw, a fault on purpose",
        nodes=("simulator",),
        minimum=0.0,
        maximum=1.0,
    ),
    Argument(
        "speed_noise_mps",
        0.0,
        "standard deviation of noise on the odometry's speed, a fault on purpose",
        nodes=("simulator",),
        minimum=0.0,
        maximum=10.0,
    ),
    Argument(
        "log",
        "",
        "file (.npz) for the simulator's own record of pose, speed and commands; empty writes none",
        nodes=("simulator",),
    ),
    # The driver.
    Argument(
        "model",
        "",
        "Alpamayo model folder, or an id of the Hugging Face hub; empty takes the tiny base shipped",
        nodes=("drive_node",),
    ),
    Argument(
        "adapter", "", "PEFT adapter folder (what finetune wrote); empty drives the bare model", nodes=("drive_node",)
    ),
    Argument(
        "cameras",
        "mono",
        "what the model is shown: mono (the front frame), mono-4frames (its last four), mono-padded (the other cameras "
        "filled with black)",
        nodes=("drive_node",),
        choices=("mono", "mono-4frames", "mono-padded"),
    ),
    Argument(
        "calibration",
        "",
        "YAML of alpamayo-mono calibrate: a frame is taken to show what was lag_s before its stamp; empty: its stamp",
        nodes=("drive_node",),
    ),
    Argument(
        "laps", 1, "laps to drive before a clean end; 0 drives on", nodes=("drive_node",), minimum=0, maximum=1000
    ),
    Argument(
        "off_road_s",
        8.0,
        "end the drive when the kart has been off the road of course for so many vehicle seconds; 0 never does",
        nodes=("drive_node",),
        minimum=0.0,
        maximum=600.0,
    ),
    Argument("replan_s", 0.2, "simulated seconds between plans", nodes=("drive_node",), minimum=0.05, maximum=2.0),
    Argument("control_hz", 40.0, "rate of control_cmd", nodes=("drive_node",), minimum=10.0, maximum=100.0),
    Argument(
        "rolling_start_mps",
        1.5,
        "below this speed the model is shown the history of a kart rolling at it, since one that learned from moving "
        "karts does not move off from standstill; 0 shows the true history",
        nodes=("drive_node",),
        minimum=0.0,
        maximum=5.0,
    ),
    Argument(
        "reference",
        "",
        "line the lateral deviation is measured from: centreline CSV, raceline CSV or a course name; empty is the "
        "centreline of course",
        nodes=("drive_node",),
    ),
    Argument(
        "noise_temperature",
        0.0,
        "spread of the noise the trajectory is drawn from: 0 always gives the same plan for the same frame, 1 is the "
        "trained spread",
        nodes=("drive_node",),
        minimum=0.0,
        maximum=2.0,
    ),
    Argument(
        "policy",
        "finetune.alpamayo_policy:AlpamayoPolicy",
        "who drives, as module:Class with a plan() method; a team's own driver goes here",
        nodes=("drive_node",),
    ),
    Argument(
        "policy_python",
        "",
        "Python interpreter of the policy process, e.g. of a newer environment with torch; empty takes this one",
        nodes=("drive_node",),
    ),
    Argument("flow_steps", 10, "Euler steps of the action expert", nodes=("drive_node",), minimum=1, maximum=100),
    Argument("reasoning", True, "false skips it and answers with the trajectory alone", nodes=("drive_node",)),
    Argument("device", "cpu", "torch device of the model: cpu, cuda, cuda:1", nodes=("drive_node",)),
    Argument(
        "steering_gain",
        0.62,
        "applied over commanded tyre angle of this kart; commands are divided by it (AWSIM: about 0.61 to 0.67)",
        nodes=("drive_node",),
        minimum=0.2,
        maximum=1.5,
    ),
    Argument(
        "frame_timeout_s",
        0.5,
        "vehicle seconds without a frame before the kart is braked",
        nodes=("drive_node",),
        minimum=0.05,
        maximum=10.0,
    ),
    Argument(
        "odometry_timeout_s",
        0.5,
        "vehicle seconds without odometry before the kart is braked",
        nodes=("drive_node",),
        minimum=0.05,
        maximum=10.0,
    ),
    Argument(
        "latency_s",
        0.0,
        "a fault on purpose: plans are used no earlier than so many vehicle seconds after their frame",
        nodes=("drive_node",),
        minimum=0.0,
        maximum=6.3,
    ),
    Argument(
        "plan_timeout_s",
        1.5,
        "age of the plan's image, vehicle seconds, before the kart is braked",
        nodes=("drive_node",),
        minimum=0.05,
        maximum=30.0,
    ),
)


def arguments_of(verb: Verb) -> tuple[Argument, ...]:
    """The arguments a verb (and its launch file) takes, in the table's order."""
    return tuple(argument for argument in ARGUMENTS if argument.used_by(verb))


def parameters_of(node: NodeName) -> tuple[Argument, ...]:
    """The arguments a node declares as ROS parameters of the same name."""
    return tuple(argument for argument in ARGUMENTS if node in argument.nodes)


def parameter_values(verb: Verb, node: NodeName, values: Mapping[str, Value]) -> dict[str, Value]:
    """What a node started by a verb is given: its share of the verb's values, defaults filled in."""
    return {
        argument.name: values.get(argument.name, argument.default_for(verb))
        for argument in arguments_of(verb)
        if node in argument.nodes and (node == MAIN_NODE[verb] or not argument.main_only)
    }


def declare_parameters(node: Node, name: NodeName) -> dict[str, Any]:
    """Declare the parameters of a node with description and range, and return their typed values.

    Args:
        node: the rclpy node; ``use_sim_time`` is declared by rclpy itself and is only read here.
        name: which node's parameters.

    Raises:
        MonoError: a value of the wrong type or out of range was given on the command line or in a file.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.exceptions import InvalidParameterValueException

    values: dict[str, Any] = {}
    for argument in parameters_of(name):
        if node.has_parameter(argument.name):
            values[argument.name] = node.get_parameter(argument.name).value
            continue
        # Dynamic typing lets a person write `wait_s: 5` for a float; the table's type is enforced below.
        descriptor = ParameterDescriptor(description=argument.help, read_only=True, dynamic_typing=True)
        limited = math.isfinite(argument.minimum) and math.isfinite(argument.maximum)
        if limited and argument.type is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(argument.minimum), to_value=int(argument.maximum), step=1)
            ]
        elif limited and argument.type is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(argument.minimum), to_value=float(argument.maximum), step=0.0)
            ]
        try:
            value: Any = node.declare_parameter(argument.name, argument.default, descriptor).value
        except InvalidParameterValueException as error:
            raise MonoError(
                f"parameter {argument.name} of {name} is out of range",
                f"{argument.minimum:g} to {argument.maximum:g}",
                argument.help,
            ) from error
        values[argument.name] = argument.coerce(value)
    return values
