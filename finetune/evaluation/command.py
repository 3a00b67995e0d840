"""Open-loop evaluation: planned paths and reasoning texts against what was really driven, on identical samples."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from collector.common.arguments import MOST_SEED, OUT, Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import open_run, plain
from collector.common.tables import Console
from collector.dataset.schema import METADATA_FILE, Sample, read_samples
from finetune.adapters.card import add_evaluation
from finetune.adapters.folder import adapter_facts, check_belongs
from finetune.evaluation.baselines import EgoRegressor, constant_motion
from finetune.evaluation.bootstrap import CONFIDENCE, RESAMPLES, group_samples
from finetune.evaluation.metrics import Scores, identical_samples, set_aside_texts
from finetune.evaluation.tables import compare_before_after, definitions, headline, print_tables, write_tables
from finetune.model_files.location import resolve_model
from finetune.policy import CameraMode, Pack, PolicySettings

PLANS_FILE = "plans.jsonl"
REGRESSOR = "ego-only regressor"
NO_PICTURE = "picture that cannot be read"


@dataclass(frozen=True)
class EvaluateConfig(Arguments):
    """Open-loop evaluation of a base model, or of base and adapter side by side.

    Plans every sample of a split (or of one clip) as in driving and compares with what was really driven: errors by
    horizon and curve, whether reasoning and path agree, three drivers without a camera beside them, and for each figure
    whether the adapter made it better, worse, or whether that is undecided.
    """

    model: Path  # a folder in the official layout, or its id on the Hugging Face hub.
    # dataset folder; its validation split is evaluated. The ego-only regressor is fitted on its training split.
    dataset: Path | None = None
    # folder for metrics.json, the tables, the plots and plans.jsonl.
    out: Annotated[Path, OUT] = Path("runs/evaluate")
    # adapter folder; with it the tables show before and after, and its card gets the result.
    adapter: Path | None = None
    clip: str | None = None  # id of a clip of NVIDIA's PhysicalAI-AV to evaluate instead of a split.
    data: Path | None = None  # with --clip, the cache_dir that the package physical_ai_av downloaded into.
    # what the kart has when it drives; mono is the newest frame of its front camera.
    cameras: CameraMode = PolicySettings.cameras
    split: str = "val"  # which split to judge: val or train.
    limit: int = argument(0, "at most so many samples, evenly spread; 0 for all", 0, 10_000_000)
    samples: int = argument(
        1, "k of minADE_k: above 1, so many plans more are drawn per sample with seeded noise", 1, 1000
    )
    seed: int = argument(0, "of that noise and of the bootstrap", 0, MOST_SEED)
    batch_size: int = argument(8, "samples per forward pass", 1, 65_536)
    plots: bool = True  # draw plots (needs the extra [report]).
    device: str = PolicySettings.device  # torch device.
    # nf4 packs the language model in four bits, as for a small card (needs the extra [gpu]).
    quantised: Pack = PolicySettings.quantised

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is None and self.dataset is None:
            raise MonoError("nothing to evaluate on", "--dataset FOLDER, or --clip ID with --data FOLDER")
        if (self.clip is None) != (self.data is None):
            found = "--clip without --data" if self.clip else "--data without --clip"
            raise MonoError(found, "both or neither", "name the clip's id and the cache_dir of physical_ai_av")
        if self.split not in ("train", "val"):
            raise MonoError(f"split {self.split!r}", "val or train")


@alone_in_out("evaluate")
def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the evaluation and write everything into the run folder.

    Plans go into ``plans.jsonl`` as they are made; the tables and plots follow at the end.

    Raises:
        MonoError: no sample, an unusable model or adapter, or no sample that every variant could be judged on.
    """
    config = replace(config, model=resolve_model(config.model))
    if config.adapter is not None:  # rather now than after the whole pass of the base
        check_belongs(adapter_facts(config.adapter), config.model, config.cameras)
    if config.clip is not None and config.data is not None:
        folder = config.out / folder_name(config.clip)
        note = [f"Clip {config.clip}:\n{build_clip(config.data, config.clip, folder)}"]
        found = list(read_samples(folder))
    else:
        folder, note = config.dataset or Path(), []  # __post_init__ refuses neither
        found = split_samples(folder, config.split)
    samples = spread(found, config.limit)
    lines = dict.fromkeys(place / METADATA_FILE for place in (folder, config.dataset) if place is not None)
    run = open_run(config.out, config, [config.model, *lines, *filter(None, [config.adapter])], "evaluate")
    plans = run.folder / PLANS_FILE
    if plans.exists():
        plans.replace(plans.with_suffix(".previous.jsonl"))  # perhaps all that a run that broke off left
    with plans.open("w", encoding="utf-8") as log:
        models = _plan_models(config, samples, folder, log)
        baselines, regressor = _plan_baselines(config, samples, log)
    variants = [*models, *baselines]
    chosen = identical_samples(variants)
    groups = group_samples(samples)
    summaries = {scores.name: scores.summary(chosen) for scores in variants}
    metrics: dict[str, Any] = {
        "kind": "open loop",
        "definitions": definitions(config.samples),
        "cameras": config.cameras,
        "evaluated": f"clip {config.clip}" if config.clip else f"split {config.split}",
        "samples": int(chosen.sum()),
        "samples_given": len(samples),
        "draws": config.samples,
        "bootstrap": {
            "groups": groups.count, "group": groups.what, "resamples": RESAMPLES, "seed": config.seed,
            "confidence": CONFIDENCE,
        },
        "ego_regressor": regressor,
        "table": headline(variants, summaries, chosen, groups, config.seed),
        "verdicts": [],
        "variants": summaries,
    }  # fmt: skip
    if config.adapter is not None:
        before, after = models
        metrics["verdicts"] = compare_before_after(before, after, chosen, groups, config.samples, config.seed)
    metrics["notes"] = [*note, *_notes(metrics)]
    written = [run.write_metrics(metrics), *write_tables(metrics, run.folder), plans]
    if config.adapter is not None:
        judged = f"clip {config.clip}" if config.clip else f"split {config.split} of {folder.resolve().name}"
        metrics["notes"] += _put_on_card(config.adapter, metrics, judged)
    if config.plots:
        try:
            require("matplotlib", "report")
        except MonoError as error:
            metrics["notes"].append(f"No plots: {error}")
        else:
            from finetune.evaluation.plots import write_plots

            written += write_plots(metrics, variants, chosen, run.folder)
    metrics["files"] = written
    return metrics


def _put_on_card(adapter: Path, metrics: dict[str, Any], judged: str) -> list[str]:
    """Put the table on the adapter's card; says where, or why not."""
    card = adapter / "README.md"
    try:
        return [f"The table is on the adapter's card too: {card}"] if add_evaluation(adapter, metrics, judged) else []
    except OSError as error:  # an adapter that is not ours to write to
        return [f"The table is not on the adapter's card: {card} cannot be written ({error})"]


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples, evenly spread; all of them for 0."""
    if not limit or len(samples) <= limit:
        return list(samples)
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).astype(int)]


def split_samples(folder: Path, split: str) -> list[Sample]:
    """The samples of one split (MonoError: there is none)."""
    samples = [sample for sample in read_samples(folder) if sample.split == split]
    if not samples:
        raise MonoError(f"no sample of split {split!r} in {folder}", "at least one", "build with --val-fraction 0.2")
    return samples


def build_clip(data: Path, clip: str, folder: Path) -> str:
    """Cut every frame of a downloaded clip with a whole history and future into samples; a dataset there is replaced.

    Returns the count of frames, for the terminal.

    Raises:
        MonoError: the clip is not there (with ids that are near), cannot be read, or gives no sample.
    """
    from collector.dataset.physical_ai import PhysicalAiConfig, PhysicalAiData, build_physical_ai

    source = PhysicalAiData(data)
    if not source.has(clip):
        held = source.clips()
        expected = "one of these: " + ", ".join(near_matches(clip, held)) if held else "a downloaded clip"
        do = "check the id, or download it with the package physical_ai_av (build-physical-ai --help says how)"
        raise MonoError(f"no clip {clip!r} among the {len(held)} downloaded into {data}", expected, do)
    report, left_out = build_physical_ai(
        PhysicalAiConfig(data, folder, clips=(clip,), val_fraction=0.0, straights=True, overwrite=True)
    )
    if left_out:
        raise MonoError(f"clip {clip}: {left_out[clip]}", "camera and motion of 20 s", "download it again")
    if report.kept == 0:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(report.rejected.items()))
        raise MonoError(f"clip {clip} gives no sample ({why})", "at least one whole history and future")
    return report.table()


def near_matches(clip: str, held: list[str], most: int = 5) -> list[str]:
    """Ids that begin alike, then ids that look alike, then simply the first ones."""
    begins = [name for name in held if clip and (name.startswith(clip) or clip.startswith(name))]
    alike = difflib.get_close_matches(clip, held, n=most, cutoff=0.5)
    found = list(dict.fromkeys([*begins, *alike])) or held
    return found[:most]


def folder_name(clip: str) -> str:
    """What the folder of a clip is called, whatever the id is made of."""
    return "clip_" + re.sub(r"[^\w.-]", "_", clip)


def _plan_models(config: EvaluateConfig, samples: Sequence[Sample], folder: Path, log: IO[str]) -> list[Scores]:
    """The base and, where given, base and adapter, on prompts encoded once."""
    from finetune.evaluation.inference import CACHE_BYTES, FrameError, SamplePrompts, plan_samples, policies

    prompts = SamplePrompts(samples, folder, config.cameras, CACHE_BYTES if config.adapter is not None else 0)
    draws = config.samples if config.samples > 1 else 0
    done = []
    for name, policy in policies(
        config.model, config.adapter, config.cameras, config.device, config.seed, config.quantised
    ):
        scores = Scores(name, samples, config.samples)
        for batch in plan_samples(policy, prompts, config.batch_size, name, draws):
            for index, planned in batch:
                if isinstance(planned, FrameError):
                    line = scores.set_aside(index, NO_PICTURE)
                else:
                    line = scores.add(index, planned[0].poses, planned[0].reasoning, planned[1])
                log.write(json.dumps(plain(line), ensure_ascii=False) + "\n")
            log.flush()
        done.append(scores)
    return done


def _plan_baselines(
    config: EvaluateConfig, samples: Sequence[Sample], log: IO[str]
) -> tuple[list[Scores], dict[str, Any]]:
    """Drivers without a camera, and what the regressor was fitted on, or why there is none."""
    drivers: dict[str, Callable[[Sample], ArrayLike]] = {
        "constant velocity": lambda sample: constant_motion(sample.history_array(), turning=False),
        "constant yaw rate": lambda sample: constant_motion(sample.history_array(), turning=True),
    }
    facts: dict[str, Any]
    try:
        regressor = fit_regressor(config)
    except MonoError as error:
        facts = {"omitted": str(error)}
    else:
        facts = {"samples": regressor.samples, "penalty": regressor.penalty}
        drivers[REGRESSOR] = lambda sample: regressor.predict(sample.history_array(), sample.speed_mps)
    done = []
    for name, drive in drivers.items():
        scores = Scores(name, samples, config.samples, thinks=False)
        for index, sample in enumerate(samples):
            log.write(json.dumps(plain(scores.add(index, drive(sample)))) + "\n")
        done.append(scores)
    return done, facts


def fit_regressor(config: EvaluateConfig) -> EgoRegressor:
    """The ego-only regressor, from the dataset's training split alone.

    Raises:
        MonoError: there is no such split, or it is what is being judged.
    """
    if config.dataset is None:
        raise MonoError("no training split beside a single clip", "--dataset FOLDER as well")
    if config.clip is None and config.split == "train":
        raise MonoError("the training split itself is judged; fitted on it, the regressor would know the answers")
    return EgoRegressor.fit(sample for sample in read_samples(config.dataset, "train") if sample.bag != config.clip)


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts = metrics["ego_regressor"]
    notes = [
        f"No {REGRESSOR}: {facts['omitted']}"
        if "omitted" in facts
        else f"{REGRESSOR}: ridge regression from 1.5 s of poses and the speed, fitted on {facts['samples']} samples "
        "of the training split and their mirror images."
    ]
    left = metrics["samples_given"] - metrics["samples"]
    if left:
        why = set_aside_texts({name: values["set_aside"] for name, values in metrics["variants"].items()})
        notes.append(f"Set aside in all rows: {left} of {metrics['samples_given']} samples ({why}).")
    return notes


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono evaluate``: open-loop tables of a model, with and without an adapter."""
    config = command_line(EvaluateConfig, argv, "alpamayo-mono evaluate")
    metrics = evaluate(config)
    print_tables(metrics, Console())
    for path in metrics["files"]:
        print(path)
