"""``alpamayo-mono recover``: turn a recording that was killed into a bag like any other, losing nothing readable."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from collector.bags.bag_files import COMPRESSED, BagFiles, files_named, find_bag_files, kind_of, read_metadata
from collector.bags.compression import ZSTD_MAGIC, pack_file, unpack_file
from collector.bags.mcap_messages import McapMessages
from collector.bags.mcap_records import read_contents
from collector.bags.metadata import METADATA_FILE, RESERVE_FILE, StoredTopic, write_metadata
from collector.bags.repair import Repair, name_aside, repair_mcap
from collector.common.arguments import POSITIONAL
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.output_folder import lock_folder


@dataclass(frozen=True)
class RecoverConfig:
    """Finish bags whose recording was killed (power, kill -9, a full disk), so that every reader opens them.

    Nothing is thrown away: bytes behind the last whole message are kept in NAME.mcap.torn beside the file. Files that
    were finished stay as they are. Reads mcap bags of ours and of ros2 bag record.
    """

    bags: Annotated[tuple[Path, ...], POSITIONAL]  # bag folders, or single .mcap files.


def recover_bag(place: Path, show_progress: bool = False) -> list[Repair]:
    """Finish a bag folder (its files, then ``metadata.yaml``) or a single .mcap file; safe on a finished one.

    Of a recording in compressed files (``--compression-mode file``) the last one is compressed too, as its recorder
    would have done; the plain one stays beside it. Returns what became of each file, in reading order.

    Raises:
        MonoError: no mcap bag there, it is still being recorded, or the disk has no room for the index.
    """
    found = find_bag_files(place)
    if other := [file.name for file in found.files if not _is_mcap(file)]:
        what = f"{place} holds {', '.join(other[:3])}, which recover does not finish"
        do = f"build and calibrate read it as it is; for other programs: ros2 bag reindex {place}"
        raise MonoError(what, "files of mcap", do)
    try:
        with _alone(place, found.files):
            return _recovered(place, found, show_progress)
    except OSError as error:
        what = f"{place} cannot be finished: {error.strerror or error}"
        expected = "a few megabytes of free space, and the right to write there"
        raise MonoError(what, expected, "make room and call recover again; nothing has been lost") from error


def _recovered(place: Path, found: BagFiles, show_progress: bool) -> list[Repair]:
    if place.is_file():
        return [repair_mcap(place, show_progress=show_progress)]
    (place / RESERVE_FILE).unlink(missing_ok=True)  # its room may be what the index needs
    packed = {path for path in found.files if path.suffix in COMPRESSED}
    repairs = [
        _inside(path) if path in packed else repair_mcap(path, show_progress=show_progress) for path in found.files
    ]
    if packed or found.twins:
        repairs = [_packed(repair, place) for repair in repairs]
    _write_metadata(place, repairs, "FILE" if packed or found.twins else "")
    return repairs


def _is_mcap(path: Path) -> bool:
    name = path.stem if path.suffix in COMPRESSED else path.name
    kind = kind_of(path)  # a torn file may have none
    return kind == "mcap" or (kind in ("", "compressed") and name.endswith(".mcap"))


def _inside(path: Path) -> Repair:
    """What a compressed file holds; one that breaks off is left as it is, and out of the bag."""
    with tempfile.TemporaryDirectory(prefix="alpamayo-bag-") as folder:
        held = Path(folder) / path.stem
        why = unpack_file(path, held)
        content = read_contents(held)
        if not why and not content.is_finished:
            why = "what is compressed in it was never finished"
        return Repair(content.stored_file(path.name), content.stored_topics(), was_finished=True, left_out=why)


def _packed(repair: Repair, place: Path) -> Repair:
    """A file as it is called once it is compressed, which is done where it is not."""
    path = place / repair.file.name
    if path.suffix in COMPRESSED:
        return repair
    target = path.with_name(path.name + COMPRESSED[0])
    if not target.exists():
        pack_file(path, target)
    return replace(repair, file=replace(repair.file, name=target.name))


def _write_metadata(place: Path, repairs: Sequence[Repair], compression: str) -> None:
    """Write ``metadata.yaml``, unless the one that is there says the same; what only it knows is kept."""
    held = [repair for repair in repairs if not repair.left_out]
    if not held:
        return  # it would name no file
    names = {repair.file.name for repair in held}
    if not compression and any(_has_compressed_messages(place / name) for name in names):
        compression = "MESSAGE"
    metadata = place / METADATA_FILE
    try:
        old = read_metadata(place)
    except MonoError:
        old = None  # put aside below
    is_same = old is not None and files_named(old) == names and all(repair.was_finished for repair in repairs)
    if is_same and str((old or {}).get("compression_mode") or "").upper() == compression:
        return
    if os.path.lexists(metadata):
        metadata.replace(name_aside(metadata))
    topics: dict[str, StoredTopic] = {}
    for topic in (topic for repair in held for topic in repair.topics):
        topics.setdefault(topic.name, topic)
    kept: dict[str, object] = {
        name: old[name] for name in ("ros_distro", "custom_data") if old is not None and name in old
    }
    write_metadata(place, [repair.file for repair in held], list(topics.values()), compression, kept)


def _has_compressed_messages(path: Path) -> bool:
    file = McapMessages(path)
    try:
        first = next(iter(file.messages({channel.topic for channel in file.counts})), None)
    finally:
        file.close()
    return first is not None and first.data[:4] == ZSTD_MAGIC


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
        _print_repairs(bag, repairs)
    for failure in failed[:-1]:
        print(f"error: {failure}", file=sys.stderr)
    if failed:
        raise failed[-1]
    return 0


def _print_repairs(bag: Path, repairs: Sequence[Repair]) -> None:
    for note in find_bag_files(bag).notes:
        print(f"note: {note}")
    counts: Counter[str] = Counter()
    for repair in repairs:
        print(describe(repair))
        if not repair.left_out:
            counts.update(repair.file.counts)
    for topic, number in sorted(counts.items()):
        print(f"  {number:8d}  {topic}")
    print(f"{bag}: {sum(counts.values())} messages readable")


def describe(repair: Repair) -> str:
    """One line for a person."""
    file = repair.file
    seconds = (file.end_ns - file.start_ns) * 1e-9
    line = f"{file.name}: {file.messages} messages over {seconds:.1f} s"
    if repair.left_out:
        return f"{line}, left out of {METADATA_FILE}: {repair.left_out}"
    if repair.was_finished:
        return line + ", was finished already"
    if repair.salvaged:
        line += f", {repair.salvaged} of them out of a half chunk"
    if repair.damaged_chunks:
        line += f"; {repair.damaged_chunks} damaged chunks left out"
    return line + (f"; {repair.bytes_cut} bytes set aside in {repair.aside.name}" if repair.aside else "")


@contextmanager
def _alone(place: Path, files: Sequence[Path]) -> Iterator[None]:
    """Hold a folder and its files: cutting a file under a living recorder, or another recover, would harm it."""
    with ExitStack() as stack:
        for path in files:
            stream = stack.enter_context(path.open("rb"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = f"{path} is being recorded, or recovered"
                raise MonoError(found, "a recording that has ended", "stop the recorder first") from None
            except OSError:
                continue  # a file system without locks
        if place.is_dir():
            stack.callback(os.close, lock_folder(place, "wait for it to end, or stop the recorder first"))
        yield
