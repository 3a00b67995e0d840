"""Open-loop evaluation: planned paths and thoughts against what was really driven, on identical samples."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from collector.errors import MonoError
from collector.run_folder import command_line, open_run
from collector.samples import Sample, read_samples
from finetune.consistency import SYMPTOM_DEFINITION, check_thought, summarise
from finetune.cores import share_cores
from finetune.path_errors import constant_motion, path_errors
from finetune.policy import CameraMode, Policy

DEFINITIONS = (
    "ADE: mean distance between planned and driven positions up to the horizon; FDE: the distance at it; "
    "max deviation: the largest distance within 3 s; all in metres, one plan per sample. " + SYMPTOM_DEFINITION + "."
)


@dataclass(frozen=True)
class Judged:
    """One sample's plan with its errors and thought check."""

    sample: Sample
    poses: NDArray[np.float64]
    reasoning: str
    errors: dict[str, float]


def judge_policy(
    policy: Policy, samples: Sequence[Sample], folder: Path, cameras: str, batch_size: int = 8
) -> Iterator[Judged]:
    """Plan every sample with the driving path itself and measure it."""
    from finetune.batches import observe  # reads frames and brings torch; the metrics above need neither

    for start in tqdm(range(0, len(samples), batch_size), desc="evaluate", unit="batch", dynamic_ncols=True):
        part = samples[start : start + batch_size]
        plans = policy.plan_many([observe(sample, folder, cameras) for sample in part])
        for sample, plan in zip(part, plans):
            yield Judged(sample, plan.poses, plan.reasoning, path_errors(plan.poses, np.asarray(sample.future)))


def summarise_policy(judged: Sequence[Judged]) -> dict[str, Any]:
    """Means over samples, overall and by curve label, with thought-path consistency and its coverage."""

    def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}

    labels = sorted({item.sample.curve.label for item in judged})
    checks = [check_thought(item.reasoning, item.poses, np.asarray(item.sample.future)) for item in judged]
    return {
        "samples": len(judged),
        **means([item.errors for item in judged]),
        "by_label": {
            label: {"samples": len(rows), **means(rows)}
            for label in labels
            if (rows := [item.errors for item in judged if item.sample.curve.label == label])
        },
        "consistency": summarise(checks).as_dict(),
    }


def summarise_baselines(samples: Sequence[Sample]) -> dict[str, Any]:
    """The same errors for constant velocity and constant yaw rate."""
    out: dict[str, Any] = {}
    for name, turning in (("constant velocity", False), ("constant yaw rate", True)):
        rows = [
            path_errors(constant_motion(np.asarray(sample.history), turning), np.asarray(sample.future))
            for sample in samples
        ]
        out[name] = {"samples": len(rows), **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}
    return out


@dataclass(frozen=True)
class EvaluateConfig:
    """Open-loop evaluation of a base model, or of base and adapter side by side.

    Attributes:
        model: model folder in the official layout.
        dataset: dataset folder; its validation split is evaluated.
        out: folder for metrics.json and plans.jsonl.
        adapter: adapter folder; with it the table shows before and after.
        cameras: camera mode of the drive: mono, mono-4frames or mono-padded.
        split: which split to judge.
        limit: at most so many samples, evenly spread; 0 for all.
        batch_size: plans per forward pass.
        device: torch device.
    """

    model: Path
    dataset: Path
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/evaluate")
    adapter: Path | None = None
    cameras: CameraMode = "mono"
    split: str = "val"
    limit: int = 0
    batch_size: int = 8
    device: str = "cpu"


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the evaluation and write ``metrics.json``, ``table.csv`` and ``plans.jsonl`` into the run folder."""
    from finetune.alpamayo_policy import AlpamayoPolicy

    samples = [sample for sample in read_samples(config.dataset) if sample.split == config.split]
    if not samples:
        raise MonoError(
            f"no sample of split {config.split!r} in {config.dataset}", "at least one", "build with --val-fraction 0.2"
        )
    if config.limit and len(samples) > config.limit:
        keep = np.linspace(0, len(samples) - 1, config.limit).astype(int)
        samples = [samples[index] for index in keep]
    run = open_run(config.out, config, inputs=[config.dataset / "metadata.jsonl", config.model])
    metrics: dict[str, Any] = {"definitions": DEFINITIONS, "cameras": config.cameras, "conditions": {}}
    runs: dict[str, Path | None] = {"before": None}
    if config.adapter is not None:
        runs["after"] = config.adapter
    with (run.folder / "plans.jsonl").open("w") as plans:
        for name, adapter in runs.items():
            policy = AlpamayoPolicy(config.model, adapter=adapter, cameras=config.cameras, device=config.device)
            judged = list(judge_policy(policy, samples, config.dataset, config.cameras, config.batch_size))
            metrics["conditions"][name] = summarise_policy(judged)
            for item in judged:
                line = {"condition": name, "id": item.sample.id, "reasoning": item.reasoning, **item.errors}
                plans.write(json.dumps({**line, "poses": np.round(item.poses, 3).tolist()}) + "\n")
    metrics["conditions"].update(summarise_baselines(samples))
    run.write_metrics(metrics)
    write_table(metrics, run.folder / "table.csv")
    return metrics


def table_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The before/after table as strings, one dict per condition."""
    rows = []
    for name, values in metrics["conditions"].items():
        consistency = values.get("consistency")
        row = {"condition": name}
        for key in ("ade_3s_m", "ade_6.4s_m", "fde_6.4s_m", "max_deviation_3s_m"):
            row[key] = f"{values[key]:.2f}"
        if consistency:
            row["consistent"] = f"{consistency['consistent']:.0%}"
            row["coverage"] = f"{consistency['coverage']:.0%}"
            row["thinks curve, drives straight"] = f"{consistency['thinks_curve_drives_straight']:.0%}"
        rows.append(row)
    return rows


def write_table(metrics: dict[str, Any], path: Path) -> None:
    """The table as CSV."""
    rows = table_rows(metrics)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def print_table(metrics: dict[str, Any]) -> None:
    """The table on the terminal, with the definitions under it."""
    from rich.console import Console
    from rich.table import Table

    rows = table_rows(metrics)
    table = Table(title=f"Open loop, {metrics['cameras']}")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(row.get(column, "") for column in rows[0]))
    console = Console()
    console.print(table)
    console.print(metrics["definitions"], style="dim")


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono evaluate``: open-loop table of a model, with and without an adapter."""
    share_cores()
    config = command_line(EvaluateConfig, argv, "alpamayo-mono evaluate")
    print_table(evaluate(config))


if __name__ == "__main__":
    main()
