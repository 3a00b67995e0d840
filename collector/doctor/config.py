"""Settings of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from collector.common.arguments import Arguments, argument, same_as
from collector.ros.parameters import RecordParameters, Rules, RulesParameters

Purpose = Literal["record", "drive"]
_LAST_DOMAIN = 232  # its ports are the last that exist; beyond it a middleware ends the process


@dataclass(frozen=True)
class DoctorConfig(Arguments):
    """Listen for a few seconds and say whether a run would be worth starting: one table, a cure per row.

    The exit code is 0 when nothing stands in the way, 1 when a run would be useless. Warnings do not fail. Run it with
    the same environment (ROS_DOMAIN_ID, RMW_IMPLEMENTATION) as the run itself.
    """

    # the run that is planned; it decides which rows may fail.
    purpose: Annotated[Purpose, tyro.conf.arg(name="for", aliases=["--purpose"])] = "record"
    seconds: float = argument(3.0, "wall seconds to listen, counted from the first message", 0.5, 120.0)
    minutes: float = argument(10.0, "planned length of the recording in simulated minutes, for the disk", 0.0, 10000.0)
    # folder the recording will be written to; by default one below runs/.
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    jpeg_quality: int = same_as(RecordParameters, "jpeg_quality")
    # of the drive: e2e needs wheels and no localisation (without one nobody measures it), free its poses.
    rules: Rules = RulesParameters.rules
    use_sim_time: bool = True  # --no-use-sim-time for a real vehicle, which has no /clock.
    # model folder of the drive, or its id on the hub; by default the tiny one, which needs no check.
    model: Path | None = None
    adapter: Path | None = None  # PEFT adapter folder of the drive.
    policy_python: str = ""  # interpreter of the policy process; by default this one.
    device: str = "cpu"  # torch device of the drive.
    own_policy: bool = False  # the driver is a team's own (policy:=module:Class): do not ask for a model and torch.
    domains: tuple[int, ...] = argument(
        (0, 1, 2, 3, 4), "other ROS domains to look for a simulator in when there is none in this one", 0, _LAST_DOMAIN
    )
    json: bool = False  # print the rows as JSON instead of a table.
