"""Can the finetuning learn a few samples by heart? If not, something between data, loss and optimiser is broken.

The samples are trained on and validated with, through `alpamayo-mono finetune` itself. At its end both losses must be
near zero and the driving path must say each reasoning word for word and drive each path.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collector.common.arguments import MOST_SEED, Arguments, argument, same_as
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.output_folder import alone_in_out
from collector.common.run_folder import open_run
from collector.common.tables import Console, Table, number
from collector.dataset.schema import METADATA_FILE, read_samples
from finetune.adapters.settings import LoraSettings
from finetune.evaluation.metrics import plan_figures
from finetune.lora_finetune import FinetuneConfig, finetune
from finetune.model_files.location import resolve_model
from finetune.policy import REFERENCE, CameraMode, PolicySettings
from finetune.studies.subsets import is_subset, nested_order, validation_losses, write_subset


@dataclass(frozen=True)
class OverfitConfig(Arguments):
    """Overfit a few samples to near zero loss through the real finetuning, and say whether that worked.

    Ends with exit code 1 where a figure misses its threshold.
    """

    model: Path  # model folder in the official layout, or its id on the Hugging Face hub.
    dataset: Path  # dataset folder made by `alpamayo-mono build`.
    out: Path = Path("runs/overfit")  # run folder; the training is in OUT/training, its samples in OUT/samples.
    samples: int = argument(4, "how many; drawn with the seed, in the dataset's mix of curves", 1, 10_000)
    steps: int = argument(200, "optimiser steps", 1, 10_000_000)
    learning_rate: float = argument(
        2e-3, "peak learning rate. 2e-3 suits the tiny model, 1e-4 the 10B weights", 1e-9, 1.0
    )
    lora_rank: int = same_as(LoraSettings, "lora_rank")
    lora_alpha: int = same_as(LoraSettings, "lora_alpha")
    cameras: CameraMode = PolicySettings.cameras  # what the kart has when it drives.
    most_text_loss: float = argument(0.05, "largest text loss that passes, nats per token", 0.0, 1000.0)
    most_flow_loss: float = argument(
        0.1,
        "largest flow loss that passes, in squared standard deviations; a model that knows nothing of the "
        "sample cannot get below 1",
        0.0,
        1000.0,
    )
    most_ade_3s_m: float = argument(0.2, "largest mean distance within 3 s that passes", 0.0, 1000.0)
    seed: int = argument(0, "of everything drawn", 0, MOST_SEED)
    device: str = PolicySettings.device  # cpu or cuda.
    threads: int = same_as(FinetuneConfig, "threads")


@alone_in_out("overfit")
def overfit(config: OverfitConfig) -> dict[str, Any]:
    """Train, judge, and write ``metrics.json`` (returned).

    It holds per figure the reached value, its threshold and whether it passes; ``passed`` for all.

    Raises:
        MonoError: fewer training samples than asked for.
    """
    from finetune.alpamayo_policy import AlpamayoPolicy
    from finetune.evaluation.inference import plan_all

    config = replace(config, model=resolve_model(config.model))
    found = [sample for sample in read_samples(config.dataset, "train") if sample.reasoning]
    if not 1 <= config.samples <= len(found):
        what = f"{config.samples} samples of the {len(found)} training samples in {config.dataset}"
        raise MonoError(what, "at least one, and no more than there are", "choose another --samples")
    samples = [found[index] for index in nested_order(found, config.seed)[: config.samples]]
    run = open_run(config.out, config, inputs=[config.dataset / METADATA_FILE, config.model], verb="overfit")
    subset, training = config.out / "samples", config.out / "training"
    _clear(subset, training)
    write_subset(config.dataset, subset, samples, samples, f"{len(samples)} samples to overfit")
    shared = ("model", "cameras", "steps", "learning_rate", "lora_rank", "lora_alpha", "seed", "device", "threads")
    finetune(
        FinetuneConfig(
            **{name: getattr(config, name) for name in shared},
            dataset=subset,
            out=training,
            batch_size=len(samples),
            warmup_steps=min(20, config.steps // 5),
            noise_draws=8,
            reasoning_dropout=0.0,  # every row speaks in every step: the reasoning is to be learnt by heart
            validate_every=max(1, config.steps // 8),
        )
    )
    losses = validation_losses(training / "training.jsonl")
    policy = AlpamayoPolicy(
        config.model, training / "adapter", cameras=config.cameras, device=config.device, engine=REFERENCE
    )
    plans = plan_all(policy, samples, subset, config.samples, "judge")
    repeated = sum(plan.reasoning == sample.reasoning.strip() for plan, sample in zip(plans, samples, strict=True))
    reached = {
        "text_loss": (losses["text_loss"], config.most_text_loss),
        "flow_loss": (losses["flow_loss"], config.most_flow_loss),
        "ade_3s_m": (plan_figures(samples, plans)["ade_3s_m"], config.most_ade_3s_m),
        "reasonings_not_repeated": (len(samples) - repeated, 0),
    }
    figures = {
        name: {"reached": value, "most": most, "passed": bool(value <= most)}  # a NaN passes nothing
        for name, (value, most) in reached.items()
    }
    for kind in ("text", "flow"):
        figures[f"{kind}_loss"]["before"] = losses[f"{kind}_loss_before"]
    metrics = {
        "samples": [sample.id for sample in samples],
        "steps": config.steps,
        "figures": figures,
        "passed": all(figure["passed"] for figure in figures.values()),
    }
    run.write_metrics(metrics)
    return metrics


def _clear(subset: Path, training: Path) -> None:
    """Remove what an earlier overfit left, and nothing else."""
    if (subset.exists() or training.exists()) and not is_subset(subset):
        found = f"{subset.parent} holds {subset.name} or {training.name} of something else"
        raise MonoError(found, "a folder of its own", "choose another --out")
    for folder in (subset, training):
        if folder.is_dir():
            print(f"removing {folder} of an earlier overfit", flush=True)
            shutil.rmtree(folder)


def print_report(metrics: Mapping[str, Any]) -> None:
    """The figures on the terminal, and under them the verdict."""
    rows = [
        [name, *(number(of.get(key), 3) for key in ("before", "reached", "most")), "" if of["passed"] else "MISSED"]
        for name, of in metrics["figures"].items()
    ]
    Console().print(Table("Learnt by heart?", ["figure", "before", "reached", "at most", ""], rows))
    if metrics["passed"]:
        print(f"passed: {len(metrics['samples'])} samples learnt by heart in {metrics['steps']} steps")
    else:
        print(
            "failed: if the losses were still falling (OUT/training/training.jsonl), try more --steps or another "
            "--learning_rate; a loss that never fell means that data, loss and optimiser do not fit together"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono overfit``; 1 where a threshold is missed."""
    metrics = overfit(command_line(OverfitConfig, argv, "alpamayo-mono overfit"))
    print_report(metrics)
    return 0 if metrics["passed"] else 1
