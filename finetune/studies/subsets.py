"""Smaller datasets cut from one, nested, mixed like the whole, no picture copied; what a training on one reached."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.text_files import read_json_lines
from collector.dataset.sample import written
from collector.dataset.schema import IMAGE_FOLDER, MANIFEST_FILE, METADATA_FILE, Sample, load_manifest
from collector.geometry.curvature import DEFAULT_THRESHOLDS


def nested_order(samples: Sequence[Sample], seed: int) -> list[int]:
    """Indices of all samples, of which every beginning is a random subset with the whole's mix of curves.

    Within a bin of label and radius the order is drawn; the bins are then dealt out evenly, so that the first N samples
    hold each bin in its share to within one sample, and N samples are part of any larger N.
    """

    def draw(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{samples[index].id}".encode(), digest_size=8).digest()

    bins: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        name = DEFAULT_THRESHOLDS.radius_bin(sample.curve.label, sample.curve.max_abs_curvature_1pm)
        bins.setdefault(name, []).append(index)
    place: dict[int, float] = {}
    for members in bins.values():
        for rank, index in enumerate(sorted(members, key=draw)):
            place[index] = (rank + 0.5) / len(members)
    return sorted(place, key=lambda index: (place[index], draw(index)))


def is_subset(folder: Path) -> bool:
    """Whether :func:`write_subset` made this folder: it may be removed, its pictures are another dataset's."""
    return (folder / IMAGE_FOLDER).is_symlink()


def write_subset(dataset: Path, out: Path, train: Sequence[Sample], validation: Sequence[Sample], note: str) -> None:
    """Write a dataset of chosen samples, whatever split they had; a link leads to the pictures where they came from.

    ``note`` says in its manifest why this subset exists.

    Raises:
        MonoError: a dataset without a manifest, or a folder that cannot be written.
    """
    lines, counts = [], Counter[str]()
    for split, samples in (("train", train), ("val", validation)):
        for sample in samples:
            lines.append(written(sample.model_copy(update={"split": split})))
            counts[sample.curve.label] += 1
    manifest = load_manifest(dataset)
    splits = {"train": len(train), "val": len(validation)}
    manifest["counts"] = {"kept": len(lines), "labels": dict(counts), "splits": splits}
    manifest["subset"] = {"of": str(dataset), "note": note}
    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures = out / IMAGE_FOLDER
        pictures.unlink(missing_ok=True)
        pictures.symlink_to((dataset / IMAGE_FOLDER).resolve(), target_is_directory=True)
        write_atomically(out / METADATA_FILE, "".join(line + "\n" for line in lines))
        write_atomically(out / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise MonoError(f"the subset {out} cannot be written: {error}", "a writable new folder", "use --out") from error


def validation_losses(log: Path) -> dict[str, float]:
    """First, last and lowest validation losses of a run's ``training.jsonl``."""
    lines = list(read_json_lines(log, "the log", dict))
    losses: dict[str, float] = {}
    for kind in ("text", "flow"):
        values = [line[f"validation_{kind}_loss"] for line in lines if f"validation_{kind}_loss" in line]
        losses |= {f"{kind}_loss": values[-1], f"{kind}_loss_lowest": min(values), f"{kind}_loss_before": values[0]}
    return losses
