"""``alpamayo-mono dagger``: samples from where a finetuned model comes to, with what the expert does from there.

Of a drive in the simulator, in process, or of a recorded one (``--bags``). What it writes is a dataset like any other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from closed_loop.course.design import course_named
from closed_loop.dagger.bags import LineCorrection
from closed_loop.dagger.choice import Choice
from closed_loop.dagger.config import DaggerConfig
from closed_loop.dagger.states import States
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig
from collector.calibration.intrinsics import camera_block
from collector.common.command_line import command_line
from collector.common.output_folder import refuse_inside
from collector.common.run_folder import hash_path
from collector.common.tables import progress
from collector.dataset.build_report import BuildReport
from collector.dataset.builder import build_dataset, finish_dataset, print_report
from collector.dataset.config import BuildConfig
from collector.dataset.schema import DatasetWriter, Split
from collector.reasoning.places import DEFAULT_MANNER_THRESHOLDS
from collector.vehicle.model import vehicle_named
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.model_files.location import resolve_model
from finetune.policy import Policy, PolicySettings

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
            states = States(config, choice, writer, report, splits[number])
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
            **({"manner_thresholds": vars(DEFAULT_MANNER_THRESHOLDS)} if config.instructions else {}),
            "calibration": None,
            "camera": camera_block(dict.fromkeys(bags, known)),
            "validation": [name for name, split in zip(config.course_names, splits, strict=True) if split == "val"],
            "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns, x forward, y left",
        }
        finish_dataset(writer, config, report, made, private=("out", "overwrite", "model", "adapter", "bags"))
    return report, choice


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
