"""What corrections of a driving model are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from closed_loop.comparison.config import CompareConfig
from closed_loop.comparison.instructed import script_words
from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.course.design import listed_courses
from closed_loop.dagger.choice import ChoiceConfig
from collector.common.arguments import OUT, argument, same_as
from collector.common.errors import MonoError
from collector.dataset.config import CurationConfig
from collector.geometry.curvature import CurveThresholds
from collector.reasoning.claims import Language
from collector.reasoning.instructions import read_instruction
from collector.ros.parameters import RoadParameters
from finetune import TINY_BASE
from finetune.policy import PolicySettings


@dataclass(frozen=True)
class _Places:
    """What is named first."""

    out: Annotated[Path, OUT]  # dataset folder to write.
    adapter: Path | None = None  # who drives: the adapter folder (what finetune wrote to OUT/adapter); not with --bags.
    model: Path = TINY_BASE  # its base, a folder in the official layout or its id on the Hugging Face hub.
    # drives recorded while the model drove, in place of driving here; --courses is then your reference line.
    bags: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DaggerConfig(ChoiceConfig, _Places):
    """Let a finetuned model drive, and make samples of what the expert does from the states that it comes to.

    Train on them beside the first dataset: alpamayo-mono finetune --dataset FIRST --more_datasets SECOND. Courses that
    were recorded, or that are to judge the result, do not belong here. With --instructions the kart is told how to
    drive, and each state becomes a pair: what the expert does there as told, and what it does as ever.
    """

    courses: str = argument(
        "random:7001,random:7002,random:7003,random:7004,random:7005,random:7006,random:7007,random:7008",
        "comma-separated courses, one after the other; of --bags one alone, the line that ought to have been driven",
    )
    starts: int = argument(1, "drives on each course, their starts evenly spread over the lap", 1, 10_000)
    laps: float = argument(RolloutConfig.laps, "laps of each drive that is told nothing", 0.001, 1000.0)
    # what the kart is told while it drives, such as 'keep left' slower; "all" for a list of two dozen. Not with --bags.
    instructions: tuple[str, ...] = ()
    hold_s: float = same_as(CompareConfig, "hold_s")
    pause_s: float = same_as(CompareConfig, "pause_s")
    seed: int = same_as(CurationConfig, "seed")
    val_fraction: float = same_as(CurationConfig, "val_fraction")
    max_speed_mps: float = same_as(RoadParameters, "max_speed_mps")
    vehicle: str = same_as(RoadParameters, "vehicle")
    jpeg_quality: int = same_as(CurationConfig, "jpeg_quality")
    reasoning_language: Language = CurationConfig.reasoning_language  # of the reasoning texts: en or ja.
    thresholds: CurveThresholds = field(default_factory=CurveThresholds)  # as of build.
    overwrite: bool = False  # replace a dataset that is there already.
    device: str = PolicySettings.device  # torch device.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.course_names:
            raise MonoError("no course", "at least one course", "name one: --courses city")
        if self.bags and len(self.course_names) != 1:
            found = f"{len(self.course_names)} courses for recorded drives"
            raise MonoError(found, "the one line that ought to have been driven", "name it: --courses raceline.csv")
        if self.bags and self.adapter is not None:
            found = "an adapter and bags that are recorded already"
            raise MonoError(found, "either", "leave --adapter out, or --bags to drive here")
        if self.bags and self.instructions:
            do = "leave --instructions out: recorded drives are over"
            raise MonoError("instructions for recorded drives", "either", do)
        for each in self.script_words:
            read_instruction(each)
        if not self.bags and self.adapter is None:
            raise MonoError("no driver", "an adapter, or drives recorded with one", "add --adapter FOLDER or --bags")

    @property
    def course_names(self) -> list[str]:
        """Each by itself."""
        return listed_courses(self.courses)

    @property
    def script_words(self) -> tuple[str, ...]:
        """Every instruction to be given."""
        return script_words(self.instructions)
