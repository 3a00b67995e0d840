"""``alpamayo-mono dagger``: samples from where a finetuned model comes to, with what the expert does from there.

Of a drive in the simulator, in process, or of a recorded one (``--bags``). What it writes is a dataset like any other.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from closed_loop.comparison.rollout import RolloutConfig, drive_many
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.course.course import Course
from closed_loop.course.design import course_named, listed_courses
from closed_loop.dagger.bags import LineCorrection
from closed_loop.dagger.choice import THINNED, Choice, ChoiceConfig
from closed_loop.dagger.watched import WatchedWorld
from closed_loop.pairs.branching import OFF_ROAD, drive_on
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig
from collector.calibration.intrinsics import camera_block
from collector.common.arguments import OUT, argument, same_as
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.output_folder import refuse_inside
from collector.common.run_folder import hash_path
from collector.common.tables import progress
from collector.dataset.build_report import BuildReport
from collector.dataset.builder import build_dataset, finish_dataset, print_report
from collector.dataset.config import BuildConfig, CurationConfig
from collector.dataset.sample import judged_sample
from collector.dataset.schema import DatasetWriter, Sample, Split, image_name
from collector.geometry.constants import FRAME_STEPS, HISTORY_STEPS, STEP_NS, STEP_S
from collector.geometry.curvature import CurveThresholds
from collector.geometry.poses import FloatArray, to_ego, wrap_angle
from collector.reasoning.claims import Language
from collector.reasoning.consistency import measure_motion
from collector.reasoning.manner_writing import write_manner
from collector.reasoning.manners import Manner
from collector.ros.images import encode_jpeg
from collector.ros.parameters import RoadParameters
from collector.vehicle.model import vehicle_named
from finetune import TINY_BASE
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.model_files.location import resolve_model
from finetune.policy import Policy, PolicySettings

SLOW = "as slow as a start"


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
    were recorded, or that are to judge the result, do not belong here.
    """

    courses: str = argument(
        "random:7001,random:7002,random:7003,random:7004,random:7005,random:7006,random:7007,random:7008",
        "comma-separated courses, one after the other; of --bags one alone, the line that ought to have been driven",
    )
    starts: int = argument(1, "drives on each course, their starts evenly spread over the lap", 1, 10_000)
    laps: float = argument(RolloutConfig.laps, "laps of each drive", 0.001, 1000.0)
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
        if not self.bags and self.adapter is None:
            raise MonoError("no driver", "an adapter, or drives recorded with one", "add --adapter FOLDER or --bags")

    @property
    def course_names(self) -> list[str]:
        """Each by itself."""
        return listed_courses(self.courses)


Policies = Callable[[DaggerConfig], Policy]


def make_policy(config: DaggerConfig) -> Policy:
    """The model with its adapter."""
    from finetune.alpamayo_policy import AlpamayoPolicy

    assert config.adapter is not None  # noqa: S101 - __post_init__ refuses its absence
    facts = adapter_facts(config.adapter)
    cameras = facts.cameras or PolicySettings.cameras
    check_belongs(facts, config.model, cameras)
    return AlpamayoPolicy(config.model, config.adapter, cameras=cameras, seed=config.seed, device=config.device)


def dagger(
    config: DaggerConfig, policies: Policies = make_policy, show_progress: bool = True
) -> tuple[BuildReport, Choice]:
    """Write the dataset; returns its counts, and those of the states (MonoError: what cannot be driven or written)."""
    choice = Choice(config)
    courses = [course_named(name) for name in config.course_names]
    expert = ExpertConfig(max_speed_mps=config.max_speed_mps, vehicle=vehicle_named(config.vehicle))
    if config.bags:
        names = ("bags", "out", "seed", "val_fraction", "jpeg_quality", "reasoning_language", "thresholds", "overwrite")
        build = BuildConfig(**{name: getattr(config, name) for name in names})
        return build_dataset(build, show_progress, LineCorrection(courses[0], expert, choice)), choice
    refuse_inside(config)
    report = BuildReport()
    with DatasetWriter(config.out, config.overwrite) as writer:
        config = replace(config, model=resolve_model(config.model))
        count = len(courses)
        held = min(max(1, round(config.val_fraction * count)), count - 1) if config.val_fraction > 0.0 else 0
        splits: list[Split] = ["val" if number >= count - held else "train" for number in range(count)]
        policy, bags = policies(config), []
        for number in progress(range(count), "dagger", "course", show=show_progress):
            states = _States(config, choice, writer, report, splits[number])
            bags += states.drive(courses[number], number, expert, policy)
        known = {
            "topic": "", "frame_id": "", "width": FRONT.width_px, "height": FRONT.height_px,
            "K": FRONT.K.ravel().tolist(), "distortion_model": "plumb_bob", "D": [],
        }  # fmt: skip
        made = {
            "made_by": "alpamayo_mono closed_loop.dagger.command",
            "bags": [{"name": name, "sha256": None} for name in bags],
            "driver": {"model": hash_path(config.model), "adapter": config.adapter and hash_path(config.adapter)},
            "correction": {"expert_on": config.course_names, "states": choice.facts()},
            "calibration": None,
            "camera": camera_block(dict.fromkeys(bags, known)),
            "validation": [name for name, split in zip(config.course_names, splits, strict=True) if split == "val"],
            "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns, x forward, y left",
        }
        finish_dataset(writer, config, report, made, private=("out", "overwrite", "model", "adapter", "bags"))
    return report, choice


class _States:
    """Takes the states of the drives on one course to the dataset."""

    def __init__(
        self, config: DaggerConfig, choice: Choice, writer: DatasetWriter, report: BuildReport, split: Split
    ) -> None:
        self._config, self._choice, self._writer, self._report = config, choice, writer, report
        self._split: Split = split

    def drive(self, course: Course, number: int, expert: ExpertConfig, policy: Policy) -> list[str]:
        """Drive a course from every start; returns what the drives are called."""
        starts = self._config.starts if course.closed else 1
        names = [f"dagger-{number + 1}-{start + 1}" for start in range(starts)]
        worlds = [WatchedWorld(name, course, self._config.seed + number, expert, self._look) for name in names]
        usual = RolloutConfig(laps=self._config.laps, vehicle=expert.vehicle)
        driver = replace(usual.driver, controller=ControllerConfig.of(expert.vehicle, None))
        places = [course.length_m * start / starts if course.closed else 0.0 for start in range(starts)]
        getattr(policy, "forget", lambda: None)()
        drive_many(worlds, policy, [replace(usual, driver=driver, start_s_m=place_m) for place_m in places])
        return names

    def _look(self, world: WatchedWorld) -> None:
        """Let the expert drive on from a state, where it is worth a sample."""
        report = self._report
        report.seen += 1
        if world.speed_mps < DriverConfig.rolling_start_mps:
            # The driver shows the model another history then.
            report.reject(SLOW)
            return
        line_yaw = world.course.follow(world.state.x_m, world.state.y_m, world.station_m)[2]
        heading_rad = float(wrap_angle(world.state.yaw_rad - line_yaw))
        kind = self._choice.kind(world.course, world.station_m, world.lateral_m, heading_rad)
        if not self._choice.takes(world.name, world.stamp_ns, kind):
            report.reject(f"{THINNED}: {kind}")
            return
        poses, beyond_m = drive_on(world, world.expert, Manner())
        if beyond_m > 0.0:
            report.reject(OFF_ROAD)
            return
        sample, verdict = self._judged(world, poses)
        self._add_pictures(world)
        if verdict is None:
            self._writer.write(sample)
            report.keep(sample)
        else:
            self._writer.quarantine(sample, verdict)
            report.quarantined += 1

    def _judged(self, world: WatchedWorld, future: FloatArray) -> tuple[Sample, dict[str, Any] | None]:
        config, stamp_ns = self._config, world.stamp_ns
        poses = np.concatenate([to_ego(np.array(world.history), world.pose), future])
        poses = np.round(poses, 6) + 0.0
        motion = measure_motion(poses[HISTORY_STEPS:], STEP_S, config.thresholds)
        seed = zlib.crc32(f"{config.seed}/{world.name}/{stamp_ns}".encode())
        text = write_manner(motion, Manner(), seed, config.thresholds, config.reasoning_language)
        names = tuple(image_name(world.name, stamp) for stamp in _stamps(world))
        facts = {
            "file_name": names[-1], "frames": names, "id": f"{world.name}_{stamp_ns}", "bag": world.name,
            "lap": world.lap, "stamp_ns": stamp_ns, "speed_mps": round(world.speed_mps, 6), "split": self._split,
        }  # fmt: skip
        return judged_sample(facts, poses, motion, str(text), config.thresholds)

    def _add_pictures(self, world: WatchedWorld) -> None:
        for stamp_ns, pose in zip(_stamps(world), list(world.history)[-FRAME_STEPS:], strict=True):
            bgr = np.ascontiguousarray(world.scene.render(FRONT, pose)[:, :, ::-1])
            self._writer.add_image(world.name, stamp_ns, encode_jpeg(bgr, self._config.jpeg_quality))


def _stamps(world: WatchedWorld) -> list[int]:
    """Of the last four frames."""
    return [world.stamp_ns - back * STEP_NS for back in reversed(range(FRAME_STEPS))]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints the tables of counts."""
    config = command_line(DaggerConfig, argv, "alpamayo-mono dagger")
    try:
        report, choice = dagger(config)
    except KeyboardInterrupt:
        print(f"dagger: stopped; {config.out} is as it was before", file=sys.stderr)
        raise
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(choice.table())
    return print_report(report, config.out)
