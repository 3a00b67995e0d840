"""A dataset looked through once, in flat memory: how it is spread, what is broken, and samples picked to show."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from collector.common.errors import MonoError
from collector.common.tables import progress
from collector.dataset import schema
from collector.dataset.build_report import PAIRED
from collector.dataset.schema import AnySample, QuarantinedSample, Sample
from collector.geometry.curvature import PathLabel

LABELS: tuple[str, ...] = get_args(PathLabel)
# Lower ends of the radius bins, metres; the last one is as good as straight.
RADIUS_FROM_M = (0, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
FASTEST_BIN_MPS = 14
# Broken lines and absent frames are all counted, and so many of them named.
_NAMED = 8

Item = TypeVar("Item")


class StratifiedPick(Generic[Item]):
    """A random choice of at most ``limit`` items of a stream, as even over their strata as the stream allows.

    Per stratum a reservoir (Vitter's algorithm R), so memory does not grow with the stream; the same seed and the
    same stream give the same choice.
    """

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._seed, self._random = limit, seed, random.Random(seed)
        self._held: dict[str, list[tuple[int, Item]]] = {}
        self._seen: Counter[str] = Counter()

    def add(self, stratum: str, item: Item) -> None:
        """Offer the next item."""
        place, held = self._seen[stratum], self._held.setdefault(stratum, [])
        self._seen[stratum] += 1
        if len(held) < self._limit:
            held.append((place, item))
        else:
            slot = self._random.randrange(place + 1)
            if slot < self._limit:
                held[slot] = (place, item)

    def picked(self) -> list[Item]:
        """The choice: the strata in turn, each in the order of the stream."""
        strata = [name for name in LABELS if name in self._held]
        strata += [name for name in self._held if name not in LABELS]
        quota = dict.fromkeys(strata, 0)
        for _ in range(self._limit):
            open_strata = [name for name in strata if quota[name] < len(self._held[name])]
            if not open_strata:
                break
            quota[min(open_strata, key=lambda name: quota[name])] += 1
        draw = random.Random(self._seed)
        rows = {name: sorted(draw.sample(self._held[name], quota[name]), key=lambda held: held[0]) for name in strata}
        longest = max(quota.values(), default=0)
        return [rows[name][turn][1] for turn in range(longest) for name in strata if turn < quota[name]]


@dataclass
class Tally:
    """How the samples of one file are spread."""

    lines: int = 0  # samples read
    broken: int = 0  # lines that are none
    missing: int = 0  # frames at t0 that are not on the disk
    labels: Counter[str] = field(default_factory=Counter)  # how many of each
    splits: Counter[str] = field(default_factory=Counter)  # how many of each
    manners: Counter[str] = field(default_factory=Counter)  # where samples say one
    claims: Counter[str] = field(default_factory=Counter)  # of places and paces
    radius_m: Counter[int] = field(default_factory=Counter)  # by the lower end of a bin of `RADIUS_FROM_M`
    speed_mps: Counter[int] = field(default_factory=Counter)  # by whole m/s, the last one is that and faster
    named: list[str] = field(default_factory=list)  # the first faults, in words

    def add(self, sample: Sample, folder: Path) -> None:
        """Count one sample."""
        self.lines += 1
        self.labels[sample.curve.label] += 1
        self.splits[sample.split] += 1
        if sample.manner is not None:
            self.manners[sample.manner] += 1
            self.claims.update(
                said for said in (sample.claim.position, sample.claim.pace) if said not in (None, "none")
            )
        radius = radius_m(sample)
        self.radius_m[max(bin_m for bin_m in RADIUS_FROM_M if bin_m <= radius)] += 1
        self.speed_mps[int(min(max(sample.speed_mps, 0.0), FASTEST_BIN_MPS))] += 1
        # pathlib would intern every name, and so grow with the dataset.
        if not os.path.isfile(f"{folder}/{sample.file_name}"):  # noqa: PTH113
            self.missing += 1
            self.name(f"{sample.id}: no image {sample.file_name}")

    def name(self, fault: str) -> None:
        """Keep one of the first faults in words."""
        if len(self.named) < _NAMED:
            self.named.append(fault)


@dataclass
class DatasetStatistics:
    """What :func:`dataset_statistics` found."""

    manifest: dict[str, Any]  # empty where there is none that can be read, and then `manifest_fault` says why
    manifest_fault: str
    kept: Tally  # how the samples of its file are spread
    quarantined: Tally  # the same
    picked: list[Sample]  # samples to show
    picked_quarantined: list[QuarantinedSample]  # the same


def dataset_statistics(
    folder: Path, samples: int, quarantined: int = 0, seed: int = 0, show_progress: bool = False
) -> DatasetStatistics:
    """Read every line of a dataset, unfinished and damaged ones too, and pick samples to show by seed.

    At most ``samples`` and ``quarantined`` of each are picked, evenly over the curve labels.

    Raises:
        MonoError: there is no ``metadata.jsonl``.
    """
    metadata = folder / schema.METADATA_FILE
    if not metadata.is_file():
        what = f"no {schema.METADATA_FILE} in {folder}"
        raise MonoError(what, "a dataset folder", "build one: alpamayo-mono build --help")
    try:
        manifest, fault = schema.load_manifest(folder), ""
    except MonoError as error:
        manifest, fault = {}, str(error)
    counts = manifest_counts(manifest)

    def count(file: Path, kind: type[AnySample], name: str, limit: int) -> tuple[Tally, list[AnySample]]:
        tally, pick = Tally(), StratifiedPick[AnySample](limit, seed)
        lines = schema.scan_samples(file, kind) if file.is_file() else iter(())
        for found in progress(lines, f"read {file.name}", "line", show=show_progress, total=counts.get(name)):
            if isinstance(found, schema.SchemaError):
                tally.broken += 1
                tally.name(str(found))
            else:
                tally.add(found, folder)
                pick.add(found.curve.label, found)
        return tally, pick.picked()

    kept, picked = count(metadata, Sample, "kept", samples)
    refused, picked_refused = count(folder / schema.QUARANTINE_FILE, QuarantinedSample, "quarantined", quarantined)
    return DatasetStatistics(manifest, fault, kept, refused, picked, picked_refused)


def pairs_of(folder: Path, chosen: Sequence[Sample]) -> dict[str, list[Sample]]:
    """All samples of the pairs that chosen samples belong to, by the pair's id."""
    found: dict[str, list[Sample]] = {sample.pair: [] for sample in chosen if sample.pair}
    for sample in schema.scan_samples(folder / schema.METADATA_FILE, Sample) if found else ():
        if isinstance(sample, Sample) and sample.pair in found:
            found[sample.pair].append(sample)
    return found


def radius_m(sample: Sample) -> float:
    """Smallest radius within the reasoning's window, metres; infinite on a line without curvature."""
    curvature = abs(sample.curve.max_abs_curvature_1pm)
    return 1.0 / curvature if curvature > 1e-9 else float("inf")


def manifest_counts(manifest: Mapping[str, Any]) -> dict[str, int]:
    """``kept``, ``quarantined`` and ``seen`` of a manifest, those that are there and are counts."""
    counts = manifest.get("counts")
    found = {name: counts.get(name) for name in ("kept", "quarantined", "seen")} if isinstance(counts, Mapping) else {}
    return {name: value for name, value in found.items() if isinstance(value, int) and value >= 0}


def count_rows(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Where every frame went, by the manifest, for a page: ``seen``, ``rows`` and whether these add up (``adds_up``).

    A row has ``name, count, share`` (percent) and ``kind`` (kept, quarantined, "").
    """
    counts = manifest_counts(manifest)
    whole = manifest.get("counts")
    rejected = whole.get("rejected") if isinstance(whole, Mapping) else None
    rows = [
        ("kept", counts.get("kept", 0), "kept"),
        ("quarantined: text and path disagree", counts.get("quarantined", 0), "quarantined"),
    ]
    if isinstance(rejected, Mapping):
        rows += [(str(name), count, "") for name, count in sorted(rejected.items()) if isinstance(count, int)]
    paired = whole.get("paired") if isinstance(whole, Mapping) else None
    if isinstance(paired, int) and paired > 0:
        rows.append((PAIRED, -paired, ""))
    total = sum(count for _name, count, _kind in rows)
    seen = counts.get("seen", total)
    return {
        "seen": seen,
        "rows": [
            {"name": name, "count": count, "share": 100.0 * count / seen if seen else 0.0, "kind": kind}
            for name, count, kind in rows
        ],
        "adds_up": total == seen,
    }
