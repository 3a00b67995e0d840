"""Repair of an mcap file that was never finished: keep every whole message, write the index that is missing.

A recorder that dies (power, ``kill -9``, a full disk) leaves a file without index and, mostly, half a chunk at its end.
The file is mended in place, since a second copy of a long drive may not fit the disk: what lies behind the last whole
record is cut off (and kept beside it), the whole messages of a half chunk become a chunk of their own, and the summary
follows. Damaged chunks between whole ones stay where they are and are left out of the index.
"""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from collector.bags.mcap_format import CHUNK_HEAD, MAGIC, RECORD_HEAD, Chunk, Header, MessageIndex
from collector.bags.mcap_records import FileContent, read_chunk, read_contents
from collector.bags.mcap_summary import Summary, counted, end_of_file
from collector.bags.mcap_writer import LIBRARY, PROFILE
from collector.bags.metadata import StoredFile, StoredTopic


@dataclass(frozen=True)
class Repair:
    """What became of a file and its topics."""

    file: StoredFile
    topics: tuple[StoredTopic, ...]
    was_finished: bool = False  # nothing had to be done
    salvaged: int = 0  # messages taken out of a half chunk
    damaged_chunks: int = 0  # chunks that cannot be read and are in no index
    bytes_cut: int = 0  # bytes cut off the end, of a half chunk or an index that broke off
    aside: Path | None = None  # the file that keeps them, None where none were kept
    left_out: str = ""  # why the file is not part of the finished bag


def repair_mcap(path: Path, keep_aside: bool = True, show_progress: bool = False) -> Repair:
    """Finish an mcap file, which nobody may be writing, in place; a finished one is left alone.

    Safe to interrupt and to call again: the end is copied aside (to ``NAME.torn``) before it is cut off, unless
    ``keep_aside`` is False.

    Raises:
        MonoError: not an mcap file.
        OSError: the disk is full, or the file may not be written.
    """
    content = read_contents(path, show_progress)
    if content.is_finished:
        return Repair(content.stored_file(path.name), content.stored_topics(), was_finished=True)
    _drop_incomplete_index(content)
    size = path.stat().st_size
    aside = _set_aside(path, content.end) if keep_aside and size > content.end else None
    cut = size - content.end
    with path.open("r+b") as stream:
        stream.truncate(content.end)
        stream.seek(content.end)
        if not content.end:
            stream.write(MAGIC + Header(PROFILE, LIBRARY).to_bytes())
        _write_newest_index(stream, content)
        salvaged = _write_salvage(stream, content)
        stream.write(_end(content, stream.tell()))
        stream.flush()
        os.fsync(stream.fileno())
    file, topics = content.stored_file(path.name), content.stored_topics()
    return Repair(file, topics, False, salvaged, content.damaged_chunks, cut, aside)


def _drop_incomplete_index(content: FileContent) -> None:
    """Cut back to the newest chunk's end when its message index is not all there, so that it is written anew."""
    if content.newest is None:
        return
    index = content.chunks[-1]
    chunk_end = index.chunk_start_offset + index.chunk_length
    if set(index.message_index_offsets) != set(content.newest.messages) and (
        content.end == chunk_end + index.message_index_length
    ):
        index.message_index_offsets.clear()
        index.message_index_length = 0
        content.end = chunk_end
    else:
        content.newest = None


def name_aside(path: Path) -> Path:
    """A free name beside a file, ``NAME.torn`` or with a number, for what is put away and not thrown away."""
    number, aside = 0, path.with_name(path.name + ".torn")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.torn{number}")
    return aside


def _set_aside(path: Path, end: int) -> Path:
    aside = name_aside(path)
    with path.open("rb") as source, aside.open("xb") as target:
        source.seek(end)
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    return aside


def _write_newest_index(stream: BinaryIO, content: FileContent) -> None:
    if content.newest is None:
        return
    index = content.chunks[-1]
    for channel_id, rows in content.newest.messages.items():
        index.message_index_offsets[channel_id] = stream.tell()
        index.message_index_length += stream.write(MessageIndex(channel_id, rows).to_bytes())
    content.newest = None


def _write_salvage(stream: BinaryIO, content: FileContent) -> int:
    """Write the whole messages of a half chunk as a chunk of their own; returns how many there were."""
    half = content.half_chunk
    if len(half) < CHUNK_HEAD.size or CHUNK_HEAD.unpack_from(half)[-1]:
        return 0  # half a compressed block yields nothing
    try:
        found = read_chunk(half[CHUNK_HEAD.size + 8 :], len(half))
    except Exception:  # noqa: BLE001 - pages that never reached the disk read as anything
        return 0
    times = [log_time_ns for rows in found.messages.values() for log_time_ns, _ in rows]
    if not times:
        return 0
    data = half[CHUNK_HEAD.size + 8 :][: found.end]
    start = stream.tell()
    record = Chunk(min(times), max(times), len(data), zlib.crc32(data), "", data).to_bytes()
    stream.write(record)
    content.add_chunk(start, record[RECORD_HEAD.size :])
    _write_newest_index(stream, content)
    return len(times)


def _end(content: FileContent, at: int) -> bytes:
    """Everything behind the data section, for a file whose data ends at byte ``at``."""
    summary = Summary(
        *(content.schemas, content.channels, None), *(content.chunks, content.attachments, content.metadata)
    )
    summary.statistics = counted(summary, content.counts, content.first_ns or 0, content.last_ns)
    return end_of_file(summary, at)
