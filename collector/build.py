"""Bags to samples: pair frames with poses on header stamps, cut, label, write thoughts, keep only what agrees.

Every frame of a bag ends in exactly one place: kept, quarantined (its text and its path disagree), or rejected for a
counted reason. The sum is checked. Reading streams, so memory does not grow with a recording's length.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from collector.bags import RawFrame, open_bag
from collector.build_config import BuildConfig, BuildReport
from collector.calibration import Calibration, read_calibration
from collector.cutting import HISTORY_NS, HORIZON_NS, SampleCutter
from collector.drives import read_drive
from collector.errors import MonoError
from collector.run_folder import command_line, git_commit, hash_path, plain
from collector.samples import DatasetWriter, SchemaError
from collector.splits import Stretch, choose_validation, stretches_of


def build_dataset(config: BuildConfig, show_progress: bool = True) -> BuildReport:
    """Build a dataset folder.

    Raises:
        MonoError: a bag is missing or lacks the camera or the odometry; the output folder is not empty; a line of the
            texts given is malformed; the calibration cannot be read.
    """
    texts = load_texts(config.reasoning) if config.reasoning is not None else None
    calibration = read_calibration(config.calibration) if config.calibration is not None else None
    lag_ns = 0 if calibration is None else calibration.lag_ns
    names = bag_names(config.bags)
    stretches: list[Stretch] = []
    for path, name in zip(config.bags, names):
        with open_bag(path) as bag:
            # Every bag is asked before the first one is cut: a missing topic should not surface after an hour.
            bag.image_topic(config.image_topic)
            drive = read_drive(bag, name, config)
        stretches += stretches_of(name, drive.track, drive.laps, HISTORY_NS, HORIZON_NS)
    validation = choose_validation(stretches, config.val_fraction, config.seed)
    report = BuildReport()
    dropped: dict[str, dict[str, int]] = {}
    with DatasetWriter(config.out, config.overwrite) as writer:
        for path, name in zip(config.bags, names):
            with open_bag(path) as bag:
                drive = read_drive(bag, name, config)
                dropped[name] = drive.track.dropped
                topic = bag.image_topic(config.image_topic)
                frames = tqdm(
                    bag.frames(topic),
                    desc=f"build {name}",
                    total=bag.counts[topic],
                    unit="frame",
                    disable=None if show_progress else True,
                    dynamic_ncols=True,
                )
                _cut_bag(frames, SampleCutter(drive, config, validation, texts, lag_ns), writer, report)
        report.check_sum()
        writer.finish(_manifest(config, names, report, validation, dropped, calibration))
    return report


def bag_names(paths: Sequence[Path]) -> list[str]:
    """A short name per bag, from its folder; repeated ones are numbered."""
    names: list[str] = []
    for path in paths:
        resolved = Path(path).resolve()
        base = resolved.stem if resolved.is_file() else resolved.name
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def load_texts(path: Path | str) -> dict[tuple[str | None, int], str]:
    """Texts by (bag or None, stamp_ns) from a JSONL file.

    Raises:
        MonoError: the file is absent.
        SchemaError: a line does not fit; it names file, line and field.
    """
    file = Path(path)
    if not file.is_file():
        raise MonoError(f"no file {file}", "a JSONL of stamp_ns and reasoning", "check --reasoning")
    texts: dict[tuple[str | None, int], str] = {}
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise SchemaError(
                    f"{file}, line {number}: {error}", "a JSON object", "repair this line"
                ) from error
            values = values if isinstance(values, dict) else {}
            for name, kind in (("stamp_ns", int), ("reasoning", str)):
                if not isinstance(values.get(name), kind) or isinstance(values.get(name), bool):
                    raise SchemaError(
                        f"{file}, line {number}, field {name}: found {values.get(name)!r}",
                        kind.__name__,
                        "repair it",
                    )
            bag = values.get("bag")
            texts[(None if bag is None else str(bag), values["stamp_ns"])] = values["reasoning"]
    return texts


def _cut_bag(
    frames: Iterable[RawFrame | None], cutter: SampleCutter, writer: DatasetWriter, report: BuildReport
) -> None:
    for frame in frames:
        report.seen += 1
        cut = cutter.add(frame)
        if isinstance(cut, str):
            report.reject(cut)
            continue
        for held in cut.frames:
            writer.add_image(cut.image_stem, held.stamp_ns, held.jpeg() or b"")
        if cut.verdict is None:
            writer.write(cut.sample)
            report.keep(cut.sample.curve.label, cut.sample.split)
        else:
            writer.quarantine(cut.sample, cut.verdict)
            report.quarantined += 1


def _manifest(
    config: BuildConfig,
    names: Sequence[str],
    report: BuildReport,
    validation: Sequence[Stretch],
    dropped: dict[str, dict[str, int]],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Everything needed to build the same folder again; nothing that would differ if one did."""
    settings = plain(config)
    for private in ("bags", "out", "overwrite", "calibration"):
        settings.pop(private)
    return {
        "made_by": "alpamayo_mono collector.build",
        "commit": git_commit(),
        "bags": [{"name": name, "sha256": hash_path(path)} for path, name in zip(config.bags, names)],
        "config": settings,
        # The pitch is for whoever draws paths into the pictures; null where no calibration was given.
        "calibration": plain(calibration),
        "counts": asdict(report),
        "poses_left_out": dropped,
        "validation": [asdict(stretch) for stretch in validation],
        "camera": "front",
        "frames": "the last four at 10 Hz, oldest first",
        "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns - lag_s of the calibration, x forward, y left",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the builder; prints the table of counts."""
    config = command_line(BuildConfig, argv, "alpamayo-mono build")
    report = build_dataset(config)
    print(report.table())
    print(f"dataset: {config.out}")
    if report.kept == 0:
        raise MonoError(
            f"none of the {report.seen} frames became a sample", "at least one", "the table above says why"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MonoError as error:
        sys.exit(f"build: {error}")
