"""Bags to samples: pair frames with poses on header stamps, cut, label, write reasoning texts, keep only what agrees.

Every frame of a bag ends in exactly one place: kept, quarantined (its text and its path disagree), or rejected for a
counted reason. The sum is checked. Reading streams, so memory does not grow with a recording's length.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from collector.bags.reader import open_bag
from collector.calibration.intrinsics import camera_block, read_intrinsics
from collector.calibration.model import Calibration, read_calibration
from collector.common.errors import MonoError
from collector.common.run_folder import command_line, git_commit, hash_path, plain
from collector.common.workers import compressing, keep_freed_memory
from collector.dataset.balance import balance_folder
from collector.dataset.config import BuildConfig, BuildReport
from collector.dataset.extraction import GUARD_NS, HISTORY_NS, HORIZON_NS, Cut, SampleCutter
from collector.dataset.schema import DatasetWriter, SchemaError
from collector.dataset.splits import Stretch, choose_validation, stretches_of
from collector.pose_tracks.recording import Drive, read_drive
from collector.ros.images import RawFrame


def build_dataset(config: BuildConfig, show_progress: bool = True) -> BuildReport:
    """Build a dataset folder.

    Raises:
        MonoError: a bag is missing or lacks the camera or the odometry; the output folder is not empty; a line of the
            texts given is malformed; the calibration cannot be read.
    """
    texts = load_texts(config.reasoning) if config.reasoning is not None else None
    calibration = read_calibration(config.calibration) if config.calibration is not None else None
    lag_ns = 0 if calibration is None else calibration.offset_ns
    keep_freed_memory()
    names = bag_names(config.bags)
    refuse_repeated(config.bags)
    report = BuildReport()
    drives: list[Drive] = []
    intrinsics: dict[str, dict[str, Any] | None] = {}
    for path, name in zip(config.bags, names):
        with open_bag(path) as bag:
            # Every bag is asked before the first one is cut: a missing topic should not surface after an hour.
            intrinsics[name] = read_intrinsics(bag, bag.image_topic(config.image_topic))
            drives.append(
                read_drive(bag, name, config.odometry_topic, config.velocity_topic, config.status_topic, config.track)
            )
            report.note_break(name, bag.breaks_off)
    stretches = [
        stretch
        for drive in drives
        for stretch in stretches_of(drive.name, drive.track, drive.laps, HISTORY_NS, HORIZON_NS)
    ]
    validation = choose_validation(stretches, config.val_fraction, config.seed, GUARD_NS)
    with DatasetWriter(config.out, config.overwrite) as writer, compressing(config.workers) as pool:
        for path, drive in zip(config.bags, drives):
            with open_bag(path) as bag:
                topic = bag.image_topic(config.image_topic)
                frames = tqdm(
                    bag.frames(topic),
                    desc=f"build {drive.name}",
                    total=bag.counts[topic],
                    unit="frame",
                    disable=None if show_progress else True,
                    dynamic_ncols=True,
                )
                line = SampleLine(writer, report, pool, config.workers)
                line.run(frames, SampleCutter(drive, config, validation, texts, lag_ns))
                report.note_break(drive.name, bag.breaks_off)
        manifest: dict[str, Any] = {}
        if config.balance:
            manifest["balance"] = balance_folder(writer.written(), config, report)
        report.check_sum()
        manifest["camera"] = camera_block(intrinsics)
        writer.finish(_manifest(config, report, validation, drives, calibration) | manifest)
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


def refuse_repeated(paths: Sequence[Path]) -> None:
    """Refuse a bag named twice, also as a folder and one of its files: its frames would be in both splits.

    Raises:
        MonoError: one is.
    """
    places = [Path(path).resolve() for path in paths]
    for number, place in enumerate(places):
        if any(other == place or other in place.parents or place in other.parents for other in places[:number]):
            raise MonoError(f"the bag {paths[number]} is named twice", "each bag once", "leave one out of --bags")


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
            except (ValueError, RecursionError) as error:
                raise SchemaError(f"{file}, line {number}: {error}", "a JSON object", "repair this line") from error
            values = values if isinstance(values, dict) else {}
            for name, kind in (("stamp_ns", int), ("reasoning", str)):
                if not isinstance(values.get(name), kind) or isinstance(values.get(name), bool):
                    raise SchemaError(
                        f"{file}, line {number}, field {name}: found {values.get(name)!r}", kind.__name__, "repair it"
                    )
            bag = values.get("bag")
            # JSON can spell half a character, which no file can hold.
            text = values["reasoning"].encode("utf-8", "replace").decode()
            texts[(None if bag is None else str(bag), values["stamp_ns"])] = text
    return texts


class SampleLine:
    """Frames to samples, in order; while one frame waits for its pictures, the next ones are read and cut.

    Args:
        writer, report: where samples and counts go.
        pool: compresses pictures beside the reading; None does it in place.
        workers: how many of the pool work at a time.
    """

    def __init__(
        self, writer: DatasetWriter, report: BuildReport, pool: Executor | None = None, workers: int = 1
    ) -> None:
        self._writer, self._report, self._pool, self._workers = writer, report, pool, workers
        self._waiting: deque[Cut] = deque()

    def run(self, frames: Iterable[RawFrame | None], cutter: SampleCutter) -> None:
        """Take all frames of a bag to where they belong."""
        for frame in frames:
            self.take(cutter.add(frame))
        self.finish()

    def take(self, cut: Cut | str) -> None:
        """Take one frame: its sample, or the reason why it has none."""
        self._report.seen += 1
        if isinstance(cut, str):
            self._report.reject(cut)
            return
        self._waiting.append(cut)
        if self._pool is not None:
            for held in cut.frames:
                held.start(self._pool)
        # One frame per worker: memory must not grow where reading is faster than compressing.
        if len(self._waiting) > (self._workers if self._pool is not None else 0):
            self._settle(self._waiting.popleft())

    def finish(self) -> None:
        """Write what still waits."""
        while self._waiting:
            self._settle(self._waiting.popleft())

    def _settle(self, cut: Cut) -> None:
        broken = cut.broken()
        if broken is not None:
            self._report.reject(broken)
            return
        for held in cut.frames:
            self._writer.add_image(cut.image_stem, held.stamp_ns, held.jpeg() or b"")
        if cut.verdict is None:
            self._writer.write(cut.sample)
            self._report.keep(cut.sample.curve.label, cut.sample.split)
        else:
            self._writer.quarantine(cut.sample, cut.verdict)
            self._report.quarantined += 1


def _manifest(
    config: BuildConfig,
    report: BuildReport,
    validation: Sequence[Stretch],
    drives: Sequence[Drive],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Everything needed to build the same folder again; nothing that would differ if one did."""
    settings = plain(config)
    for private in ("bags", "out", "overwrite", "workers", "calibration"):
        settings.pop(private)
    return {
        "made_by": "alpamayo_mono collector.dataset.builder",
        "commit": git_commit(),
        "bags": [{"name": drive.name, "sha256": hash_path(path)} for path, drive in zip(config.bags, drives)],
        "config": settings,
        # The pitch is for whoever draws paths into the pictures; null where no calibration was given.
        "calibration": plain(calibration),
        "counts": report.counts(),
        "pose_quality": {drive.name: drive.track.report.plain() for drive in drives},
        "poses_left_out": {drive.name: drive.track.dropped for drive in drives},
        "validation": [asdict(stretch) for stretch in validation],
        "frames": "the last four at 10 Hz, oldest first",
        "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns - lag_s of the calibration, x forward, y left",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the builder; prints the table of counts."""
    config = command_line(BuildConfig, argv, "alpamayo-mono build")
    try:
        report = build_dataset(config)
    except KeyboardInterrupt:
        print(f"build: stopped; {config.out} is as it was before", file=sys.stderr)
        raise
    for name, why in report.breaks.items():
        print(f"warning: the bag {name} is not whole, what could be read was used: {why}", file=sys.stderr)
    print(report.table())
    print(f"dataset: {config.out}")
    if report.kept == 0:
        raise MonoError(f"none of the {report.seen} frames became a sample", "at least one", "the table above says why")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MonoError as error:
        sys.exit(f"build: {error}")
