"""Level the training split of a dataset folder by label and radius of the curve.

Straights often outnumber everything else. It works on the lines already written, two passes of one line in memory at a
time, and removes the pictures that no line needs any more; the validation split stays as it was driven.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collector.dataset.build_report import BuildReport
from collector.dataset.config import CurationConfig
from collector.dataset.schema import IMAGE_FOLDER, METADATA_FILE, QUARANTINE_FILE, Sample, parse_sample, stream_samples

BALANCED = "left out to balance the curves"
_NO_LIMIT = 2**62


def balance_folder(folder: Path, config: CurationConfig, report: BuildReport) -> dict[str, Any]:
    """Thin the crowded bins of the training samples in a folder whose lines are written but whose manifest is not.

    What is left out is moved in the report from kept to rejected. Returns the bins before and after, for the manifest.
    """

    def bin_of(sample: Sample) -> str:
        return config.thresholds.radius_bin(sample.curve.label, sample.curve.max_abs_curvature_1pm)

    draws: dict[str, array[int]] = {}
    for sample in stream_samples(folder / METADATA_FILE, "train"):
        draws.setdefault(bin_of(sample), array("Q")).append(_digest(f"{config.seed}/{sample.id}"))
    before = {name: len(values) for name, values in sorted(draws.items())}
    limit = bin_limit(before, config.balance_ratio, config.balance_rare_share)
    # A sample stays when its draw is among the lowest of its bin: the same samples whatever else is in the folder.
    highest = {
        name: int(np.partition(np.frombuffer(values, np.uint64), limit - 1)[limit - 1])
        for name, values in draws.items()
        if len(values) > limit
    }
    del draws
    after: Counter[str] = Counter()
    needed = array("Q")
    file, part = folder / METADATA_FILE, folder / f"{METADATA_FILE}.part"
    with file.open("rb") as lines, part.open("wb") as kept:
        for number, raw in enumerate(lines, start=1):
            sample = parse_sample(raw.decode(), file, number, Sample)
            name = bin_of(sample)
            if sample.split == "train":
                if _digest(f"{config.seed}/{sample.id}") > highest.get(name, 2**64):
                    report.take_back(sample, BALANCED)
                    continue
                after[name] += 1
            kept.write(raw)
            needed.extend(_digest(frame) for frame in sample.frames)
    part.replace(file)
    if highest:
        _remove_pictures(folder, needed)
    return {
        "ratio": config.balance_ratio,
        "most_per_bin": None if limit == _NO_LIMIT else limit,
        "train_before": before,
        "train_after": dict(sorted(after.items())),
        "reason": BALANCED,
    }


def bin_limit(counts: Mapping[str, int], ratio: float, rare_share: float) -> int:
    """The most samples a bin may have: ``ratio`` times those of the smallest bin that is not rare."""
    total = sum(counts.values())
    common = [count for count in counts.values() if count and count >= rare_share * total]
    return max(1, math.floor(ratio * min(common))) if common else _NO_LIMIT


def _remove_pictures(folder: Path, needed: array[int]) -> None:
    with (folder / QUARANTINE_FILE).open("rb") as lines:
        for raw in lines:
            needed.extend(_digest(frame) for frame in json.loads(raw)["frames"])
    wanted = np.unique(np.frombuffer(needed, np.uint64))
    for path in (folder / IMAGE_FOLDER).iterdir():
        digest = np.uint64(_digest(f"{IMAGE_FOLDER}/{path.name}"))
        at = int(np.searchsorted(wanted, digest))
        if at == len(wanted) or wanted[at] != digest:
            path.unlink()


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
