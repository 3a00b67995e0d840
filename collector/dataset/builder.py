"""Bags to samples: pair frames with poses on header stamps, cut, label, write reasoning texts, keep only what agrees.

Every frame of a bag ends in exactly one place: kept, quarantined (its text and its path disagree), or rejected for a
counted reason. The sum is checked. Reading streams, so memory does not grow with a recording's length.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from collector.bags.reader import open_bag
from collector.calibration.intrinsics import camera_block, read_intrinsics
from collector.calibration.model import read_calibration
from collector.common.arguments import Arguments
from collector.common.command_line import command_line
from collector.common.cpu import compressing, keep_freed_memory
from collector.common.errors import MonoError
from collector.common.files import path_error
from collector.common.output_folder import refuse_inside, refuse_within
from collector.common.run_folder import git_commit, hash_path, plain
from collector.common.tables import progress
from collector.dataset.balance import balance_folder
from collector.dataset.build_report import BuildReport
from collector.dataset.config import BuildConfig, CurationConfig
from collector.dataset.extraction import (
    GUARD_NS,
    HISTORY_NS,
    HORIZON_NS,
    NO_HISTORY,
    Candidate,
    Correction,
    SampleExtractor,
)
from collector.dataset.given_texts import load_texts
from collector.dataset.neighbours import Neighbours
from collector.dataset.schema import OWN_NAMES, DatasetWriter, Sample
from collector.dataset.splits import choose_validation, intervals_of
from collector.pose_tracks.identity import Looks, looks_of, refuse_copies
from collector.pose_tracks.recording import Recording, read_recording
from collector.reasoning.places import DEFAULT_MANNER_THRESHOLDS
from collector.ros.images import BadFrame, RawFrame
from collector.ros.jpeg import UPRIGHT


def build_dataset(config: BuildConfig, show_progress: bool = True, correction: Correction | None = None) -> BuildReport:
    """Build a dataset folder; a ``correction`` says what ought to have been driven, in place of what was.

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
    read = [*config.bags, *filter(None, (config.reasoning, config.calibration))]
    refuse_inside(config)
    refuse_within([config.out / name for name in OWN_NAMES], read)
    report = BuildReport()
    recordings: list[Recording] = []
    intrinsics: dict[str, dict[str, Any] | None] = {}
    hashes: list[str | None] = []
    topics = config.odometry_topic, config.velocity_topic, config.status_topic
    with DatasetWriter(config.out, config.overwrite) as writer, compressing(config.workers) as pool:
        for path, name in zip(config.bags, names, strict=True):
            with open_bag(path) as bag:
                # Every bag is asked before the first one is cut: a missing topic should not surface after an hour.
                camera = bag.image_topic(config.image_topic)
                intrinsics[name] = read_intrinsics(bag, camera)
                # A recording in one file is no copy of another, and its pictures need not be read twice.
                compared = camera if len(config.bags) > 1 or bag.file_count > 1 else None
                recordings.append(read_recording(bag, name, *topics, config.track, compared))
                report.note_break(name, bag.breaks_off)
            try:
                hashes.append(hash_path(path))
            except OSError as error:
                raise path_error(error, path) from error
        refuse_copies(names, [one.identity for one in recordings], partial(_looks, config))
        intervals = [each for one in recordings for each in intervals_of(one, HISTORY_NS, HORIZON_NS)]
        validation = choose_validation(intervals, config.val_fraction, config.seed, GUARD_NS)
        neighbours = (
            Neighbours(recordings)
            if correction is None and (texts is not None or any(one.marks.manners for one in recordings))
            else None
        )
        for path, recording in zip(config.bags, recordings, strict=True):
            with open_bag(path) as bag:
                topic = bag.image_topic(config.image_topic)
                what, total = f"build {recording.name}", bag.counts[topic]
                frames = progress(bag.frames(topic), what, "frame", show=show_progress, total=total)
                extractor = SampleExtractor(recording, config, validation, texts, lag_ns, neighbours, correction)
                FramePipeline(writer, report, pool, config.workers).run(frames, extractor)
                report.note_break(recording.name, bag.breaks_off)
                for remark in (*bag.notes, *filter(None, [recording.marks.unread]), *extractor.remarks()):
                    report.note(recording.name, remark)
        facts = {
            "made_by": "alpamayo_mono collector.dataset.builder",
            "bags": [{"name": name, "sha256": digest} for name, digest in zip(names, hashes, strict=True)],
            # The pitch is for whoever draws paths into the pictures; null where no calibration was given.
            "calibration": plain(calibration),
            "pose_quality": {one.name: one.track.report.plain() for one in recordings},
            "poses_left_out": {one.name: one.track.dropped for one in recordings},
            "validation": [asdict(interval) for interval in validation],
            "camera": camera_block(intrinsics),
            "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns - lag_s of the calibration, "
            "x forward, y left",
        }
        if correction is not None:
            facts["correction"] = correction.facts()
        if neighbours is not None and neighbours.is_marked:
            facts["manner_thresholds"] = asdict(DEFAULT_MANNER_THRESHOLDS)
        finish_dataset(writer, config, report, facts, private=("bags", "out", "overwrite", "workers", "calibration"))
    return report


def _looks(config: BuildConfig, number: int, stamps_ns: Sequence[int]) -> Looks:
    with open_bag(config.bags[number]) as bag:
        return looks_of(bag, bag.image_topic(config.image_topic), stamps_ns)


def finish_dataset(
    writer: DatasetWriter, config: Arguments, report: BuildReport, facts: dict[str, Any], private: Sequence[str]
) -> None:
    """Balance the samples where asked to, check the counts and put the dataset in its place.

    The manifest says what ``facts`` do and the settings that are not ``private``: everything needed to build the same
    folder again, and nothing that would differ if one did.
    """
    if isinstance(config, CurationConfig) and config.balance:
        facts = facts | {"balance": balance_folder(writer.written(), config, report)}
    report.check_sum()
    if writer.replaces and not report.kept:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(report.rejected.items()))
        found = f"none of the {report.seen} frames became a sample ({why}); the dataset that was there stays"
        raise MonoError(found, "at least one sample", "mend the cause, or build into another --out")
    settings = {name: value for name, value in plain(config).items() if name not in private}
    ours = {"commit": git_commit(), "config": settings, "counts": report.counts()}
    writer.finish({**ours, "frames": "the last four at 10 Hz, oldest first", **facts})


def bag_names(paths: Sequence[Path]) -> list[str]:
    """A short name per bag, from its folder; repeated ones are numbered."""
    names: list[str] = []
    for path in paths:
        resolved = Path(path).resolve()
        base = resolved.stem if resolved.is_file() else resolved.name
        base = base.encode(errors="replace").decode()  # bytes that are no UTF-8 fit into no manifest
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def refuse_repeated(paths: Sequence[Path]) -> None:
    """Refuse (MonoError) a bag named twice, also as a folder and one of its files: it would be in both splits."""
    places = [Path(path).resolve() for path in paths]
    for number, place in enumerate(places):
        if any(other == place or other in place.parents or place in other.parents for other in places[:number]):
            raise MonoError(f"the bag {paths[number]} is named twice", "each bag once", "leave one out of --bags")


class FramePipeline:
    """Frames to samples, in order; while one frame waits for its pictures, the next ones are read and cut.

    ``workers`` of the pool compress pictures beside the reading; without a pool that is done in place.
    """

    def __init__(
        self, writer: DatasetWriter, report: BuildReport, pool: Executor | None = None, workers: int = 1
    ) -> None:
        self._writer, self._report, self._pool = writer, report, pool
        # One frame per worker: memory must not grow where reading is faster than compressing.
        self._most_waiting = 0 if pool is None else workers

    def run(
        self,
        frames: Iterable[RawFrame | BadFrame],
        extractor: SampleExtractor,
        refuse: Callable[[Sample], str | None] = lambda _: None,
    ) -> None:
        """Take all frames of a recording to where they belong; ``refuse`` may reject a sample with a reason."""
        waiting: deque[Candidate] = deque()
        for frame in frames:
            self._report.seen += 1
            candidate = extractor.add(frame)
            if isinstance(frame, BadFrame):
                self._report.note(extractor.name, *frame)
            why = candidate if isinstance(candidate, str) else refuse(candidate.sample)
            if isinstance(candidate, str) or why:
                self._report.reject(str(why))
                continue
            waiting.append(candidate)
            if self._pool is not None:
                for held in candidate.frames:
                    held.start(self._pool)
            if len(waiting) > self._most_waiting:
                self._settle(waiting.popleft())
        while waiting:
            self._settle(waiting.popleft())

    def _settle(self, candidate: Candidate) -> None:
        bag, broken = candidate.sample.bag, candidate.broken()
        if broken is not None:
            self._report.reject(broken.reason)
            if broken.reason != NO_HISTORY:
                self._report.note(bag, *broken)
            return
        for held in candidate.frames:
            if held.cut_bytes:
                self._report.note(bag, "frames have bytes behind the end of their JPEG, which were cut off")
            if held.orientation != UPRIGHT:
                said = f"frames say in their Exif that the camera was turned (orientation {held.orientation})"
                self._report.note(bag, f"{said}; they are kept as recorded, and turned where they are looked at")
            self._writer.add_image(candidate.image_stem, held.stamp_ns, held.jpeg() or b"")
        if candidate.verdict is None:
            self._writer.write(candidate.sample)
            self._report.keep(candidate.sample)
            for other in candidate.others:
                self._writer.write(other)
                self._report.keep_pair(other)
        else:
            self._writer.quarantine(candidate.sample, candidate.verdict)
            self._report.quarantined += 1


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
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    return print_report(report, config.out)


def print_report(report: BuildReport, out: Path) -> int:
    """Print the table of counts and where the dataset is; a dataset without a sample is an error (MonoError)."""
    print(report.table())
    print(f"dataset: {out}")
    if report.kept == 0:
        raise MonoError(f"none of the {report.seen} frames became a sample", "at least one", "the table above says why")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MonoError as error:
        sys.exit(f"build: {error}")
