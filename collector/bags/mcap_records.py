"""What an mcap file holds, found by walking its records: the way to read one that was never finished.

A finished file answers from its summary. Anything else is walked from the start up to the last whole record, every
chunk checked against its checksum. Record layout: https://mcap.dev/spec.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from collector.bags.compression import LARGEST_BYTES, check_size, decompressed
from collector.bags.mcap_format import (
    CHUNK_HEAD,
    MAGIC,
    MESSAGE_HEAD,
    RECORD_HEAD,
    Attachment,
    AttachmentIndex,
    Chunk,
    ChunkIndex,
    Fields,
    Header,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Opcode,
)
from collector.bags.mcap_summary import Declarations, Record, Summary, read_summary, records
from collector.bags.metadata import StoredFile, StoredTopic
from collector.common.errors import MonoError

# Keys of a channel's metadata, as rosbag2 writes them.
QOS_KEY, TYPE_HASH_KEY = "offered_qos_profiles", "topic_type_hash"


@dataclass
class ChunkContent(Declarations):
    """The records inside a chunk: (time of arrival, offset in the chunk) of each message, by channel id."""

    messages: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass
class FileContent(Declarations):
    """The records of a file; ``end`` is that of its data section, 0 where not even a header is there."""

    is_finished: bool = False  # the file has its summary; only the declarations and the counts are then filled in
    chunks: list[ChunkIndex] = field(default_factory=list)  # their index records
    attachments: list[AttachmentIndex] = field(default_factory=list)  # theirs
    metadata: list[MetadataIndex] = field(default_factory=list)  # theirs
    counts: Counter[int] = field(default_factory=Counter)  # messages per channel id
    first_ns: int | None = None  # time of arrival, None without messages
    last_ns: int = 0  # and 0 without
    damaged_chunks: int = 0  # whole chunks whose content cannot be read; they are in no index
    newest: ChunkContent | None = None  # content of the newest readable chunk, None without one
    half_chunk: bytes = b""  # the body of a chunk that breaks off at the file's end

    def add_chunk(self, start: int, body: bytes) -> None:
        """Note a whole chunk record that begins at byte ``start``.

        Raises:
            Exception: of many kinds, where its content cannot be read.
        """
        chunk = Chunk.read(body)
        data = chunk_content(body)
        content = read_chunk(data, len(body))
        if content.end != len(data):
            raise ValueError("less in the chunk than it says")
        self.schemas.update(content.schemas)
        self.channels.update(content.channels)
        self.newest = content
        self.chunks.append(
            ChunkIndex(
                chunk_length=RECORD_HEAD.size + len(body),
                chunk_start_offset=start,
                compression=chunk.compression,
                compressed_size=len(chunk.data),
                message_start_time=chunk.message_start_time,
                message_end_time=chunk.message_end_time,
                message_index_length=0,
                message_index_offsets={},
                uncompressed_size=chunk.uncompressed_size,
            )
        )
        for channel_id, rows in content.messages.items():
            for log_time_ns, _ in rows:
                self._count(channel_id, log_time_ns)

    def add_record(self, record: Record) -> bool:
        """Note any other record; False for one that does not belong to the data section."""
        start, opcode, body = record.start, record.opcode, record.body
        length = record.end - start
        if opcode == Opcode.MESSAGE_INDEX:
            if self.newest is not None:
                index = self.chunks[-1]
                index.message_index_offsets[MessageIndex.read(body).channel_id] = start
                index.message_index_length += length
        elif opcode == Opcode.MESSAGE:
            channel_id, _, log_time_ns, _ = MESSAGE_HEAD.unpack_from(body)
            self._count(channel_id, log_time_ns)
        elif opcode == Opcode.METADATA:
            self.metadata.append(MetadataIndex(start, length, Metadata.read(body).name))
        elif opcode == Opcode.ATTACHMENT:
            a = Attachment.read(body)
            self.attachments.append(
                AttachmentIndex(start, length, a.log_time, a.create_time, len(a.data), a.name, a.media_type)
            )
        elif opcode == Opcode.HEADER:
            Header.read(body)
        else:
            return self.declare(record)
        return True

    def stored_file(self, name: str) -> StoredFile:
        """The file's row in ``metadata.yaml``."""
        counts: Counter[str] = Counter()
        for channel_id, number in self.counts.items():
            if channel_id in self.channels:
                counts[self.channels[channel_id].topic] += number
        return StoredFile(name, dict(counts), self.first_ns or 0, self.last_ns)

    def stored_topics(self) -> tuple[StoredTopic, ...]:
        """The topics it declares."""
        return tuple(
            StoredTopic(
                channel.topic,
                self.schemas[channel.schema_id].name if channel.schema_id in self.schemas else "",
                channel.message_encoding,
                channel.metadata.get(QOS_KEY, ""),
                channel.metadata.get(TYPE_HASH_KEY, ""),
            )
            for channel in self.channels.values()
        )

    def _count(self, channel_id: int, log_time_ns: int) -> None:
        self.counts[channel_id] += 1
        self.first_ns = log_time_ns if self.first_ns is None else min(self.first_ns, log_time_ns)
        self.last_ns = max(self.last_ns, log_time_ns)


def read_contents(path: Path, show_progress: bool = False) -> FileContent:
    """What a file holds, by its summary if that tells, else by walking it (MonoError: not an mcap file)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            summary, is_finished = read_summary(stream, size), True
        except Exception:  # noqa: BLE001 - an end that breaks off may read as anything
            summary, is_finished = None, False
        if summary is not None and (finished := _from_summary(summary)) is not None:
            return finished
        stream.seek(0)
        quiet = None if show_progress else True
        with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, delay=1.0, disable=quiet) as bar:
            content = _walk(path, stream, size, bar)
        # Statistics are optional, and so is the whole summary: a file that ends as it should needs no other end.
        content.is_finished = is_finished
        return content


def chunk_content(body: bytes, is_whole: bool = True) -> bytes:
    """The records of a chunk; of one that breaks off, those that its bytes still give.

    Raises:
        ValueError: larger than any chunk, or a whole one of another size or checksum than it says.
        Exception: of other kinds, where it is damaged.
    """
    _, _, size, crc, _ = CHUNK_HEAD.unpack_from(body)
    fields = Fields(body)
    fields.data(CHUNK_HEAD.size - 4)
    compression = fields.text()
    check_size(size, "a chunk")
    data = decompressed(compression, body[fields.at + 8 :], size if is_whole else LARGEST_BYTES)
    if is_whole and len(data) != size:
        raise ValueError(f"it holds {len(data)} bytes where it says {size}")
    if is_whole and crc and zlib.crc32(data) != crc:
        raise ValueError("its checksum does not fit")
    return data


def check_count(count: int, stored_bytes: int) -> None:
    """Raise ValueError for more records than the bytes they take in the file: each message has a time of its own."""
    if count > stored_bytes:
        raise ValueError(f"more than {stored_bytes} records in as many bytes")


def read_chunk(data: bytes, stored_bytes: int) -> ChunkContent:
    """The records of a chunk's data, up to the first that is not whole or does not belong there.

    Raises:
        ValueError: more records than ``stored_bytes``, the size of the chunk in its file.
    """
    content = ChunkContent()
    for count, record in enumerate(records(BytesIO(data), len(data)), start=1):
        check_count(count, stored_bytes)
        if record.is_whole and record.opcode == Opcode.MESSAGE and len(record.body) >= MESSAGE_HEAD.size:
            channel_id, _, log_time_ns, _ = MESSAGE_HEAD.unpack_from(record.body)
            content.messages.setdefault(channel_id, []).append((log_time_ns, record.start))
        elif not (record.is_whole and content.declare(record)):
            break
        content.end = record.end
    return content


def names_all(summary: Summary, counts: Counter[int]) -> bool:
    """Whether a summary declares the channels that have messages, and their types; repeating these is optional."""
    numbers, schemas = set(+counts), {0, *summary.schemas}
    return numbers <= set(summary.channels) and all(summary.channels[n].schema_id in schemas for n in numbers)


def _from_summary(summary: Summary) -> FileContent | None:
    found = summary.statistics
    if found is None or not names_all(summary, Counter(found.channel_message_counts)):
        return None
    return FileContent(
        is_finished=True,
        schemas=summary.schemas,
        channels=summary.channels,
        counts=Counter(found.channel_message_counts),
        last_ns=found.message_end_time,
        first_ns=found.message_start_time if found.message_count else None,
    )


def _walk(path: Path, stream: BinaryIO, size: int, bar: tqdm[NoReturn]) -> FileContent:
    content = FileContent()
    magic = stream.read(len(MAGIC))
    if magic != MAGIC[: len(magic)]:
        raise MonoError(f"{path} does not begin like an mcap file", "a bag file of alpamayo-mono or rosbag2")
    if len(magic) < len(MAGIC):
        return content
    for record in records(stream, size):
        bar.update(stream.tell() - bar.n)
        if not record.is_whole:
            # A longer one is no chunk, but a damaged length.
            is_half = record.opcode == Opcode.CHUNK and size - record.start - RECORD_HEAD.size <= LARGEST_BYTES
            content.half_chunk = record.body if is_half else b""
            break
        if record.is_too_large and record.opcode == Opcode.MESSAGE:
            content.end = record.end  # stays where it is, and is in no count
            continue
        try:
            if record.opcode == Opcode.CHUNK:
                content.add_chunk(record.start, record.body)
            elif not content.add_record(record):
                break
        except Exception:  # noqa: BLE001 - bytes that are no record fail in many ways (struct, Unicode, zstd, checksum)
            if record.opcode != Opcode.CHUNK:
                break
            content.damaged_chunks += 1
            content.newest = None  # the message index that follows belongs to no chunk of ours
            continue
        content.end = record.end
    return content
