"""Settings of verb ``drive`` and its node, and the programs that the verbs of this package start.

As :mod:`collector.ros.parameters` it needs neither tyro nor pydantic: launch files and nodes read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from closed_loop.control.driver import DriverConfig
from closed_loop.control.safety_limits import SafetyLimits
from closed_loop.serving.settings import PolicyPlace
from collector.common.arguments import Arguments, argument, same_as
from collector.common.errors import MonoError
from collector.reasoning.instructions import read_instruction
from collector.ros import parameters
from collector.ros.topics import CONTROL_HZ, INSTRUCTION
from collector.vehicle.model import GivenGain


@dataclass(frozen=True)
class GoalParameters(parameters.RulesParameters, parameters.RoadParameters):
    """What driver and evaluator share."""

    laps: int = argument(1, "laps to drive before a clean end; 0 drives on", 0, 1000)
    off_road_s: float = argument(
        8.0,
        "end the drive when the kart has been off the road of course for so many vehicle seconds; 0 never does",
        0.0,
        600.0,
    )


@dataclass(frozen=True)
class EvaluatorBeside(Arguments):
    """For who drives by the rules e2e."""

    evaluator: bool = argument(
        True,
        "by the rules e2e: start the evaluator too, which tells the driver the start, the laps and the end, and notes "
        "where the kart really was; false drives at once and does not count",
    )


@dataclass(frozen=True)
class DriveParameters(GoalParameters, parameters.RunParameters, PolicyPlace, GivenGain, EvaluatorBeside):
    """Parameters of the driving node."""

    calibration: str = argument(
        "",
        "YAML of alpamayo-mono calibrate: a frame is taken to show what was lag_s before its stamp; empty: its stamp",
    )
    replan_s: float = same_as(DriverConfig, "replan_s")
    control_hz: float = argument(CONTROL_HZ, "rate of control_cmd, Hz", 10.0, 100.0)
    rolling_start_mps: float = same_as(DriverConfig, "rolling_start_mps")
    reference: str = argument(
        "",
        "line the lateral deviation is measured from: centreline CSV, raceline CSV or a course name; empty is the "
        "centreline of course",
    )
    frame_timeout_s: float = same_as(SafetyLimits, "frame_age_s")
    odometry_timeout_s: float = same_as(SafetyLimits, "odometry_age_s")
    plan_timeout_s: float = same_as(SafetyLimits, "plan_age_s")
    instruction: str = argument(
        "",
        "what the model is asked to do, such as 'keep left' or 'slower'; given one, the driver also hears others on "
        f"{INSTRUCTION.name} ('usual' asks for nothing yet)",
    )
    latency_s: float = argument(
        0.0, "a fault on purpose: plans are used no earlier than so many vehicle seconds after their frame", 0.0, 6.3
    )
    jitter_s: float = argument(
        0.0, "a fault on purpose: each plan comes up to so many vehicle seconds later still, drawn", 0.0, 3.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        read_instruction(self.instruction)
        if self.instruction.strip() and not self.reasoning:
            raise MonoError("instruction:= together with reasoning:=false", "a model that reasons", "leave out either")


@dataclass(frozen=True)
class DriveConfig(parameters.SimulatorParameters, DriveParameters, parameters.SimulatorBeside):
    """Drive the kart closed-loop with one camera.

    Plans from the model, control_cmd at control_hz, brakes when frames, odometry or plans are missing. Writes a log and
    the lateral deviation from the reference. Examples:

    alpamayo-mono drive adapter:=runs/lora/adapter (AWSIM is running)

    alpamayo-mono drive --simulator --adapter runs/lora/adapter --laps 2
    """

    disturbance: float = argument(
        0.0, "scale of the simulator's disturbances; 0 starts in the lane, straight", 0.0, 3.0
    )
    expert: bool = argument(False, "the simulator's built-in driver publishes control_cmd; two drivers would quarrel")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.simulator and self.mode == "e2e" and self.rules == "free":
            found = "rules:=free beside a simulator with mode:=e2e, which publishes no pose"
            raise MonoError(found, "poses for a driver that needs them", "rules:=e2e, or mode:=dev")

    @property
    def evaluates(self) -> bool:
        """Whether the evaluator is started beside the driver: driving freely, the driver counts for itself."""
        return self.evaluator and self.rules == "e2e"


_CHECKS = "closed_loop.start_checks"
EVALUATOR_BESIDE = parameters.Program(
    "evaluator_node", "closed_loop.ros.evaluator_node", GoalParameters, switch="evaluates"
)
DRIVE_NODE = parameters.Program(
    "drive_node", "closed_loop.ros.drive_node", DriveParameters, check=f"{_CHECKS}:check_drive"
)
SIMULATE_NODE = parameters.Program(
    "simulator", "closed_loop.simulator.node", parameters.SimulateConfig, check=f"{_CHECKS}:check_simulator"
)
# Beside another node it is not told when to end: the recorder counts its seconds from the first frame.
SIMULATOR_BESIDE = replace(SIMULATE_NODE, parameters=parameters.SimulatorParameters, switch="simulator")
