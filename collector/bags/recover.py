"""``alpamayo-mono recover``: turn a recording that was killed into a bag like any other, losing nothing readable."""

from __future__ import annotations

import fcntl
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from collector.bags.mcap_records import reading_order
from collector.bags.metadata import METADATA_FILE, RESERVE_FILE, StoredTopic, write_metadata
from collector.bags.repair import Repair, repair_mcap
from collector.common.errors import MonoError
from collector.common.run_folder import command_line


@dataclass(frozen=True)
class RecoverConfig:
    """Finish bags whose recording was killed (power, kill -9, a full disk), so that every reader opens them.

    Nothing is thrown away: bytes behind the last whole message are kept in NAME.mcap.torn beside the file. Files that
    were finished stay as they are. Reads mcap bags of ours and of ros2 bag record.
    """

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Bag folders, or single .mcap files."""


def recover_bag(place: Path, show_progress: bool = False) -> list[Repair]:
    """Finish a bag folder (its files, then ``metadata.yaml``) or a single .mcap file; safe on a finished one.

    Returns what became of each file, in reading order.

    Raises:
        MonoError: no mcap bag there, it is still being recorded, or the disk has no room for the index.
    """
    if not place.exists():
        raise MonoError(f"no bag at {place}", "a bag folder or an .mcap file", "check the path")
    files = [place] if place.is_file() else reading_order(place)
    if not files:
        raise MonoError(f"{place} holds no .mcap file", "a folder that a recording left", "check the path")
    for path in files:
        _refuse_if_recording(path)
    try:
        if place.is_dir():
            (place / RESERVE_FILE).unlink(missing_ok=True)  # its room may be what the index needs
        repairs = [repair_mcap(path, show_progress=show_progress) for path in files]
        metadata = place / METADATA_FILE
        if place.is_dir() and not (metadata.exists() and all(repair.was_finished for repair in repairs)):
            if metadata.exists():
                metadata.replace(metadata.with_name(METADATA_FILE + ".torn"))
            topics: dict[str, StoredTopic] = {}
            for topic in (topic for repair in repairs for topic in repair.topics):
                topics.setdefault(topic.name, topic)
            write_metadata(place, [repair.file for repair in repairs], list(topics.values()))
    except OSError as error:
        found = f"{place} cannot be finished: {error.strerror or error}"
        expected = "a few megabytes of free space, and the right to write there"
        raise MonoError(found, expected, "make room and call recover again; nothing has been lost") from error
    return repairs


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``recover``; prints what became of each file.

    Raises:
        MonoError: a bag could not be finished; the others have been.
    """
    config = command_line(RecoverConfig, argv, "alpamayo-mono recover")
    if not config.bags:
        raise MonoError("no bag was named", "alpamayo-mono recover BAG ...", "name the folder that record left")
    failed: list[MonoError] = []
    for bag in config.bags:
        try:
            repairs = recover_bag(bag, show_progress=True)
        except MonoError as error:
            failed.append(error)  # the other bags can still be saved
            continue
        for repair in repairs:
            print(describe(repair))
        counts: Counter[str] = Counter()
        for repair in repairs:
            counts.update(repair.file.counts)
        for topic, number in sorted(counts.items()):
            print(f"  {number:8d}  {topic}")
        print(f"{bag}: {sum(counts.values())} messages readable")
    for failure in failed[:-1]:
        print(f"error: {failure}", file=sys.stderr)
    if failed:
        raise failed[-1]
    return 0


def describe(repair: Repair) -> str:
    """One line for a person."""
    file = repair.file
    seconds = (file.end_ns - file.start_ns) * 1e-9
    line = f"{file.name}: {file.messages} messages over {seconds:.1f} s"
    if repair.was_finished:
        return line + ", was finished already"
    if repair.salvaged:
        line += f", {repair.salvaged} of them out of a half chunk"
    if repair.damaged_chunks:
        line += f"; {repair.damaged_chunks} damaged chunks left out"
    return line + (f"; {repair.bytes_cut} bytes set aside in {repair.aside.name}" if repair.aside else "")


def _refuse_if_recording(path: Path) -> None:
    """Cutting the file under a living recorder would harm what it writes next; a recorder holds a lock."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = f"{path} is being recorded"
            raise MonoError(found, "a recording that has ended", "stop the recorder first") from None
        except OSError:
            return  # a file system without locks
