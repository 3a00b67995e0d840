"""Which files of a place are its recording: what a folder holds counts, not what ``metadata.yaml`` says it holds.

Every file is either part of the recording or named. What kind a file is, its first bytes tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collector.bags.compression import LZ4_MAGIC, ZSTD_MAGIC
from collector.bags.mcap_format import MAGIC
from collector.bags.metadata import METADATA_FILE, RESERVE_FILE
from collector.common.errors import MonoError
from collector.common.text_files import MIB, read_yaml

_SQLITE_MAGIC, _ROS1_MAGIC = b"SQLite format 3\x00", b"#ROSBAG V"
_FOREIGN = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf", "7z"),
)
COMPRESSED = (".zstd", ".zst")
STORAGES = (".mcap", ".db3")
_SUFFIXES = (*STORAGES, *(storage + packed for storage in STORAGES for packed in COMPRESSED))
# Beside a database: what its writer had not yet put into it (read with it), the index of that, and what it would undo.
WAL, _SHM, JOURNAL = "-wal", "-shm", "-journal"
# Files that say something about a recording, and what `recover` sets aside.
_ABOUT = re.compile(rf"{re.escape(METADATA_FILE)}|{re.escape(RESERVE_FILE)}|recording_report\.json|receipt\.json|\..*")
_ASIDE = re.compile(r".*\.torn\d*")
_MOST_NAMED = 8
_DEPTH = 3  # of folders in which bags are looked for, to name them
_MOST_METADATA_BYTES = MIB  # a line or two per file of the bag


@dataclass(frozen=True)
class BagFiles:
    """The files of a recording in reading order, and sentences about what else was found."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    has_metadata: bool = True
    # of a file, its compressed twin: read where the file itself breaks off
    twins: dict[Path, Path] = field(default_factory=dict)


def kind_of(path: Path) -> str:
    """``"mcap"``, ``"sqlite3"``, ``"ros1"``, ``"compressed"``, or an empty string for anything else."""
    with path.open("rb") as stream:
        head = stream.read(len(_SQLITE_MAGIC))
    kinds = (MAGIC, "mcap"), (_SQLITE_MAGIC, "sqlite3"), (_ROS1_MAGIC, "ros1")
    packed = (ZSTD_MAGIC, "compressed"), (LZ4_MAGIC, "compressed")
    return next((kind for magic, kind in (*kinds, *packed, *_FOREIGN) if head.startswith(magic)), "")


def no_recording(path: Path) -> str:
    """What a file is that holds no recording we read, as a sentence without its subject; empty where nothing tells."""
    if path.stat().st_size == 0:
        return "it is empty"
    kind = kind_of(path)
    if kind == "ros1":
        return "it is a bag of ROS 1 (rosbags-convert makes one of ROS 2 of it)"
    is_foreign = kind in {name for _, name in _FOREIGN}
    return f"it is compressed by {kind}, which is not read: decompress it" if is_foreign else ""


def find_bag_files(place: Path) -> BagFiles:
    """The files of a bag folder, or the single file that was named.

    Raises:
        MonoError: nothing is there, a ROS 1 bag, or a folder without a file of a recording.
    """
    expected = "a bag folder or an .mcap or .db3 file"
    try:
        if not place.exists():
            raise MonoError(f"no bag at {place}", expected, "check the path")
        if place.is_file():
            if kind_of(place) == "ros1":
                raise _ros1(place)
            return BagFiles((place,))
        if not place.is_dir():
            raise MonoError(f"{place} is neither a file nor a folder", expected, "check the path")
        entries = sorted(place.iterdir())
        files = reading_order(place, _SUFFIXES)
        plain = files or [entry for entry in entries if entry.is_file() and not _ABOUT.fullmatch(entry.name)]
        old = [entry for entry in plain if kind_of(entry) == "ros1" or entry.suffix == ".bag"]
        if old and len(old) >= len(files):
            raise _ros1(old[0])
        if not files:  # the names do not tell, then the bytes do
            files = [
                entry for entry in entries if entry.is_file() and kind_of(entry) in ("mcap", "sqlite3", "compressed")
            ]
        if not files:
            inner = [str(entry) for entry in _folders(place, _DEPTH) if reading_order(entry, _SUFFIXES)]
            what = [f"{entry.name}: {why}" for entry in plain if (why := no_recording(entry))]
            found = f"{place} holds no .mcap or .db3 file, so no message can be read from it"
            found += f" ({_listed(what)})" * bool(what)
            do = f"name the bags in it: {_listed(inner)}" if inner else "check the path"
            raise MonoError(found, "a bag folder with its files", do)
        twins = {file: twin for file in files for twin in files if twin.stem == file.name and twin.suffix in COMPRESSED}
        files = [file for file in files if file not in twins.values()]
        return BagFiles(tuple(files), tuple(_notes(place, entries, files, twins)), _has_metadata(place), twins)
    except (OSError, ValueError) as error:
        raise MonoError(f"{place} cannot be opened: {error}", expected, "check the path and who may read it") from error


def reading_order(folder: Path, suffixes: Sequence[str] = (".mcap",)) -> list[Path]:
    """The bag files of a folder in the order of their numbers: bag_2.mcap comes before bag_10.mcap."""

    def by_numbers(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]

    files = [path for path in folder.iterdir() if path.name.endswith(tuple(suffixes)) and path.is_file()]
    return sorted(files, key=by_numbers)


def order_of_time(names: Sequence[str], starts_ns: Sequence[int | None]) -> list[int]:
    """In what order to read files that begin at these times (None: nothing in it), as indices.

    Files of one name but for their number stay as they are; several recordings in one folder follow in time.
    """
    stems = [re.sub(r"\d+\D*$", "", name) for name in names]
    begins: dict[str, int] = {}
    for stem, start_ns in zip(stems, starts_ns, strict=True):
        if start_ns is not None:
            begins[stem] = min(begins.get(stem, start_ns), start_ns)
    last = max(begins.values(), default=0) + 1
    return sorted(range(len(names)), key=lambda k: (begins.get(stems[k], last), stems[k], k))


def read_metadata(folder: Path) -> dict[str, object] | None:
    """What ``metadata.yaml`` says, None where it is absent or no metadata.

    Raises:
        MonoError: it cannot be read: damaged, or no text.
    """
    if not _has_metadata(folder):
        return None
    values = read_yaml(folder / METADATA_FILE, _MOST_METADATA_BYTES).get("rosbag2_bagfile_information")
    return values if isinstance(values, dict) else None


def files_named(metadata: dict[str, object] | None) -> set[str]:
    """The names of the files that ``metadata.yaml`` lists."""
    listed = (metadata or {}).get("relative_file_paths")
    return {Path(str(name)).name for name in listed} if isinstance(listed, list) else set()


def _folders(place: Path, depth: int) -> list[Path]:
    inner = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())
    return inner + [each for entry in inner if depth > 1 for each in _folders(entry, depth - 1)]


def _has_metadata(place: Path) -> bool:
    return os.path.lexists(place / METADATA_FILE)


def _notes(place: Path, entries: Sequence[Path], files: Sequence[Path], twins: dict[Path, Path]) -> list[str]:
    notes = []
    metadata, why = None, "it says nothing about a bag"
    try:
        metadata = read_metadata(place)
    except MonoError as error:
        why = error.found
    if _has_metadata(place) and metadata is None:
        notes.append(f"{METADATA_FILE} cannot be read, the files themselves were: {why}")
    held = {file.name for file in entries}
    missing = sorted(name for name in files_named(metadata) if name not in held)
    missing = [name for name in missing if Path(name).stem not in held and not {name + c for c in COMPRESSED} & held]
    if missing:
        notes.append(f"{METADATA_FILE} names {_listed(missing)}, which the folder does not hold")
    extra = sorted(file.name for file in files if metadata and files_named(metadata) and file not in twins)
    extra = [name for name in extra if not {name, *(name + c for c in COMPRESSED)} & files_named(metadata)]
    if extra:
        notes.append(f"{METADATA_FILE} does not name {_listed(extra)}; read all the same")
    read = {*files, *twins.values()}
    beside = {file.with_name(file.name + end) for file in files for end in (WAL, _SHM, JOURNAL)}
    other = [
        entry.name + "/" * entry.is_dir()
        for entry in entries
        if entry not in read | beside and not _ABOUT.fullmatch(entry.name) and not _ASIDE.fullmatch(entry.name)
    ]
    if other:
        notes.append(f"not part of the recording, not read: {_listed(other)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _ros1(path: Path) -> MonoError:
    do = f"convert it first: rosbags-convert --src {path} --dst {path.with_suffix('')}"
    return MonoError(f"{path} is a bag of ROS 1", "a bag of ROS 2", do)
