"""Settings of verb ``drive`` and its node, and the programs that the verbs of this package start.

As :mod:`collector.ros.parameters` it needs neither tyro nor pydantic: launch files and nodes read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from closed_loop.control.driver import DriverConfig
from closed_loop.control.safety_limits import SafetyLimits
from closed_loop.ros.policy_process import DEFAULT_POLICY
from collector.common.arguments import Arguments, argument, same_as
from collector.common.errors import MonoError
from collector.ros import parameters
from collector.ros.topics import CONTROL_HZ
from collector.vehicle.model import GivenGain
from finetune.policy import Engine, FrontMode, PolicySettings


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
class DriveParameters(GoalParameters, parameters.RunParameters, GivenGain, EvaluatorBeside):
    """Parameters of the driving node."""

    model: str = argument(
        "", "Alpamayo model folder, or an id of the Hugging Face hub; empty takes the tiny base shipped"
    )
    adapter: str = argument("", "PEFT adapter folder (what finetune wrote); empty drives the bare model")
    cameras: FrontMode = argument(
        PolicySettings.cameras,
        "what the model is shown: mono (the front frame), mono-4frames (its last four), mono-padded (the other cameras "
        "filled with black)",
    )
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
    noise_temperature: float = same_as(PolicySettings, "noise_temperature")
    policy: str = argument(
        DEFAULT_POLICY, "who drives, as module:Class with a plan() method; a team's own driver goes here"
    )
    policy_python: str = argument(
        "", "Python interpreter of the policy process, e.g. of a newer environment with torch; empty takes this one"
    )
    flow_steps: int = same_as(PolicySettings, "flow_steps")
    reasoning: bool = argument(
        PolicySettings.reasoning, "false skips the reasoning and answers with the trajectory alone"
    )
    engine: Engine = argument(
        PolicySettings.engine,
        "fast reads along what the reasoning will probably say; eager is the reference, word by word",
    )
    samples: int = same_as(PolicySettings, "samples")
    reasoning_hz: float = same_as(PolicySettings, "reasoning_hz")
    device: str = argument(PolicySettings.device, "torch device of the model: cpu, cuda, cuda:1")
    frame_timeout_s: float = same_as(SafetyLimits, "frame_age_s")
    odometry_timeout_s: float = same_as(SafetyLimits, "odometry_age_s")
    plan_timeout_s: float = same_as(SafetyLimits, "plan_age_s")
    latency_s: float = argument(
        0.0, "a fault on purpose: plans are used no earlier than so many vehicle seconds after their frame", 0.0, 6.3
    )
    jitter_s: float = argument(
        0.0, "a fault on purpose: each plan comes up to so many vehicle seconds later still, drawn", 0.0, 3.0
    )


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


EVALUATOR_BESIDE = parameters.Program(
    "evaluator_node", "closed_loop.ros.evaluator_node", GoalParameters, switch="evaluator"
)
DRIVE_NODE = parameters.Program("drive_node", "closed_loop.ros.drive_node", DriveParameters)
SIMULATE_NODE = parameters.Program("simulator", "closed_loop.simulator.node", parameters.SimulateConfig)
# Beside another node it is not told when to end: the recorder counts its seconds from the first frame.
SIMULATOR_BESIDE = parameters.Program(
    SIMULATE_NODE.name, SIMULATE_NODE.module, parameters.SimulatorParameters, switch="simulator"
)
