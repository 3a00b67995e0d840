"""The records of an mcap file one after the other, and the summary at its end: read, and written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from collector.bags.compression import LARGEST_BYTES
from collector.bags.mcap_format import (
    FOOTER_BYTES,
    MAGIC,
    RECORD_HEAD,
    AttachmentIndex,
    Channel,
    ChunkIndex,
    Content,
    Footer,
    MetadataIndex,
    Opcode,
    Schema,
    Statistics,
)


class Record(NamedTuple):
    """A record as it lies in a file: where it begins and ends, its opcode and body, and whether all of it is there."""

    start: int
    end: int  # the byte behind a whole record
    opcode: int
    body: bytes
    is_whole: bool

    @property
    def is_too_large(self) -> bool:
        """Whether it claims more bytes than are read in one piece; its body is then left out."""
        return not self.body and self.end - self.start - RECORD_HEAD.size > LARGEST_BYTES


def records(stream: BinaryIO, size: int) -> Iterator[Record]:
    """The records from the stream's position on; the last one may break off, and only of a chunk what is left is read.

    A record whose opcode the format does not have comes without its body, as the last.
    """
    while len(head := stream.read(RECORD_HEAD.size)) == RECORD_HEAD.size:
        opcode, length = RECORD_HEAD.unpack(head)
        start = stream.tell() - RECORD_HEAD.size
        left = size - stream.tell()
        if not Opcode.HEADER <= opcode <= Opcode.DATA_END or length > left:
            half = stream.read(min(length, left, LARGEST_BYTES)) if opcode == Opcode.CHUNK else b""
            yield Record(start, start + RECORD_HEAD.size + len(half), opcode, half, is_whole=False)
            return
        end = start + RECORD_HEAD.size + length
        if length > LARGEST_BYTES and opcode in (Opcode.CHUNK, Opcode.MESSAGE):
            yield Record(start, end, opcode, b"", is_whole=True)
            stream.seek(end)
        else:
            yield Record(start, end, opcode, stream.read(length), is_whole=True)


@dataclass
class Declarations:
    """What a chunk or a file declares, by id; ``end`` is the byte behind its last whole record."""

    end: int = 0
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)

    def declare(self, record: Record) -> bool:
        """Note a schema or a channel; False for any other record."""
        if record.opcode == Opcode.SCHEMA:
            schema = Schema.read(record.body)
            self.schemas[schema.id] = schema
        elif record.opcode == Opcode.CHANNEL:
            channel = Channel.read(record.body)
            self.channels[channel.id] = channel
        else:
            return False
        return True


@dataclass
class SummaryOffset(Content):
    """Where the records of one kind lie in the summary."""

    opcode = Opcode.SUMMARY_OFFSET
    layout = ("number1", "number8", "number8")
    group_opcode: int
    group_start: int
    group_length: int


@dataclass
class DataEnd(Content):
    """The end of the data; a checksum of 0 is none."""

    opcode = Opcode.DATA_END
    layout = ("number4",)
    data_section_crc: int


@dataclass
class Summary:
    """What lies behind the data: declarations, indexes and counts."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    statistics: Statistics | None = None
    chunk_indexes: list[ChunkIndex] = field(default_factory=list)
    attachment_indexes: list[AttachmentIndex] = field(default_factory=list)
    metadata_indexes: list[MetadataIndex] = field(default_factory=list)


def counted(summary: Summary, counts: Mapping[int, int], first_ns: int, last_ns: int) -> Statistics:
    """The statistics of a file with this summary, messages by channel, and first and last time of arrival."""
    return Statistics(
        message_count=sum(counts.values()),
        schema_count=len(summary.schemas),
        channel_count=len(summary.channels),
        attachment_count=len(summary.attachment_indexes),
        metadata_count=len(summary.metadata_indexes),
        chunk_count=len(summary.chunk_indexes),
        message_start_time=first_ns,
        message_end_time=last_ns,
        channel_message_counts=dict(counts),
    )


def end_of_file(summary: Summary, at: int) -> bytes:
    """Everything behind the data section, for a file whose data ends at byte ``at``."""
    before, written = DataEnd(0).to_bytes(), b""
    start = at + len(before)
    groups: tuple[Sequence[Content], ...] = (
        list(summary.schemas.values()),
        list(summary.channels.values()),
        [summary.statistics] if summary.statistics else [],
        summary.chunk_indexes,
        summary.attachment_indexes,
        summary.metadata_indexes,
    )
    offsets = []
    for records in groups:
        group = b"".join(each.to_bytes() for each in records)
        if records:
            offsets.append(SummaryOffset(records[0].opcode, start + len(written), len(group)))
        written += group
    offset_start = start + len(written)
    written += b"".join(each.to_bytes() for each in offsets)
    # The footer's checksum covers the summary and the footer up to the checksum itself.
    begun = Footer(start, offset_start, 0).to_bytes()[:-4]
    footer = Footer(start, offset_start, zlib.crc32(begun, zlib.crc32(written)))
    return before + written + footer.to_bytes() + MAGIC


def read_summary(stream: BinaryIO, size: int) -> Summary | None:
    """The summary of a file of so many bytes, None for a finished file without one.

    Raises:
        Exception: of many kinds, where the file does not end as it should.
    """
    stream.seek(size - FOOTER_BYTES - len(MAGIC))
    end = stream.read()
    [opcode, _], is_closed = RECORD_HEAD.unpack_from(end), end[FOOTER_BYTES:] == MAGIC
    if opcode != Opcode.FOOTER or not is_closed:
        raise ValueError("it does not end like an mcap file")
    footer = Footer.read(end[RECORD_HEAD.size : FOOTER_BYTES])
    if not footer.summary_start:
        return None
    stream.seek(footer.summary_start)
    summary, declared = Summary(), Declarations()
    for record in records(stream, size):
        if not record.is_whole:
            raise ValueError(f"the summary's record at byte {record.start} breaks off")
        if record.opcode == Opcode.STATISTICS:
            summary.statistics = Statistics.read(record.body)
        elif record.opcode == Opcode.CHUNK_INDEX:
            summary.chunk_indexes.append(ChunkIndex.read(record.body))
        elif record.opcode == Opcode.ATTACHMENT_INDEX:
            summary.attachment_indexes.append(AttachmentIndex.read(record.body))
        elif record.opcode == Opcode.METADATA_INDEX:
            summary.metadata_indexes.append(MetadataIndex.read(record.body))
        elif record.opcode == Opcode.FOOTER:
            summary.schemas, summary.channels = declared.schemas, declared.channels
            return summary
        else:
            declared.declare(record)
    raise ValueError("its summary has no end")
