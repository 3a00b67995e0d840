"""The card of what a run made: from what, how, how well, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.run_folder import git_commit, hash_path
from collector.common.tables import metres, percent
from collector.common.text_files import read_json
from collector.dataset.schema import MANIFEST_FILE, METADATA_FILE
from finetune.model_files.location import base_fingerprint, model_name

CARD = Path(__file__).with_name("card.md")
EVALUATION = "## Evaluation"  # as in the card
# Settings that tell where and on what, not how.
_PLACES = ("model", "dataset", "more_datasets", "out", "cameras", "overwrite", "device", "threads", "checkpoint_every")


def adapter_card(settings: Mapping[str, Any], precision: str, base_folder: Path, metrics: Mapping[str, Any]) -> str:
    """README.md of an adapter or a model: front matter for the Hugging Face hub, then what a person asks first.

    ``settings`` are those of a ``finetune.lora_finetune.FinetuneConfig``, ``metrics`` those of the finished run.
    """
    base = model_name(base_folder)
    cameras, whole = settings["cameras"], settings["method"] == "full"
    return CARD.read_text(encoding="utf-8").format(
        quoted=json.dumps(base),
        base=base,
        cameras=cameras,
        library="transformers" if whole else "peft",
        what="All weights of the chosen parts" if whole else "A PEFT adapter (LoRA)",
        parts=", ".join(part for part, count in metrics["trainable_parameters"].items() if count),
        fingerprint=base_fingerprint(base_folder),
        method=settings["method"],
        precision=precision,
        commit=git_commit() or "unknown",
        trainable=sum(metrics["trainable_parameters"].values()),
        driven="MODEL" if whole else base + " adapter:=ADAPTER",
        option="--model MODEL" if whole else f"--model {base} --adapter ADAPTER",
        data="\n".join(_data([settings["dataset"], *settings["more_datasets"]], metrics)),
        losses="\n".join(_losses(metrics)),
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items() if name not in _PLACES),
    )


def add_evaluation(adapter: Path, metrics: Mapping[str, Any], dataset: str) -> bool:
    """Put the table of an evaluation on an adapter's card in place of the one before; whether there is a card of ours.

    ``dataset`` says in words what :func:`finetune.evaluation.command.evaluate` was run on.
    """
    path = adapter / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(f"\n{EVALUATION}\n")
    if not found:
        return False
    _, heading, after = rest.partition("\n## ")
    bootstrap = metrics["bootstrap"]
    lines = [
        f"{metrics['samples']} samples of {dataset}, cameras {metrics['cameras']}; code {git_commit() or 'unknown'}.",
        "",
        "| variant | max deviation within 3 s | result | ADE 3 s | FDE 6.4 s | path as reasoning (coverage) |",
        "|---|---|---|---|---|---|",
    ]
    for row in metrics["table"]:
        values = metrics["variants"][row["variant"]]
        said = values.get("consistency")
        agrees = f"{percent(said['consistent'])} ({percent(said['coverage'])})" if said else "-"
        lines.append(
            f"| {row['variant']} | {metres(row['max_deviation_m'])} | {row['result']} | {metres(values['ade_3s_m'])} "
            f"| {metres(values['fde_6.4s_m'])} | {agrees} |"
        )
    over = f"{bootstrap['groups']} {bootstrap['group']}"
    lines += ["", f"Change with its {bootstrap['confidence']:.0%} interval: paired bootstrap over {over}."]
    write_atomically(path, f"{before}\n{EVALUATION}\n\n" + "\n".join(lines) + f"\n{heading}{after}")
    return True


def _data(datasets: Sequence[str], metrics: Mapping[str, Any]) -> list[str]:
    lines = [
        "| | |",
        "|---|---|",
        f"| samples | {metrics['train_samples']:,} to train, {metrics['validation_samples']:,} to validate |",
    ]
    if metrics["set_aside"]:
        lines.append("| set aside | " + ", ".join(f"{n} {reason}" for reason, n in metrics["set_aside"].items()) + " |")
    return lines + [line for dataset in datasets for line in _facts(Path(dataset))]


def _facts(dataset: Path) -> list[str]:
    lines = [f"| {METADATA_FILE} | sha256 {hash_path(dataset / METADATA_FILE)} |"]
    try:
        manifest = read_json(dataset / MANIFEST_FILE)
    except MonoError:
        return [*lines, f"| {MANIFEST_FILE} | none |"]
    lines.append(f"| {MANIFEST_FILE} | sha256 {hash_path(dataset / MANIFEST_FILE)} |")
    lines.append(f"| made by | {manifest.get('made_by')}, commit {manifest.get('commit')} |")
    lines += [f"| recording {bag.get('name')} | sha256 {bag.get('sha256')} |" for bag in manifest.get("bags", ())]
    for name, counts in manifest.get("counts", {}).items():
        said = ", ".join(f"{key} {n}" for key, n in counts.items()) if isinstance(counts, dict) else counts
        lines.append(f"| {name} | {said} |")
    return lines


def _losses(metrics: Mapping[str, Any]) -> list[str]:
    lines = ["| validation loss | before | after |", "|---|---|---|"]
    for term in ("text", "flow", "xy"):
        pair = [metrics.get(f"{when}_validation_{term}_loss") for when in ("first", "last")]
        if None not in pair:
            lines.append(f"| {term} | {pair[0]:.4f} | {pair[1]:.4f} |")
    return lines if metrics["validation_samples"] else ["No validation samples: no losses to tell."]
