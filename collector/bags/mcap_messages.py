"""The messages of an mcap file: by its index where it has one, else from the front, up to where it makes no sense.

Nothing is taken from elsewhere than the file, and no more is held in memory than the chunks that overlap in time.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from collector.bags.compression import LARGEST_BYTES, TooLargeError, check_growth, check_size
from collector.bags.mcap_format import (
    CHUNK_HEAD,
    MAGIC,
    MESSAGE_HEAD,
    RECORD_HEAD,
    Channel,
    ChunkIndex,
    Fields,
    Opcode,
    Schema,
)
from collector.bags.mcap_records import check_count, chunk_content, names_all
from collector.bags.mcap_summary import Record, Summary, read_summary, records

_INDEX_HEAD, _INDEX_ENTRY = 15, 16  # bytes of a MessageIndex record without entries, and of an entry
# Of chunks whose times overlap, so many bytes are held at once.
_MOST_OPEN_BYTES = 2 * LARGEST_BYTES


class TopicType(NamedTuple):
    """A topic, its type, and how its messages are serialised."""

    topic: str
    type: str
    encoding: str


class StoredMessage(NamedTuple):
    """One message as it lies in a bag."""

    channel: TopicType
    received_ns: int
    data: bytes


class McapMessages:
    """The messages of one mcap file; ``breaks`` says what could not be read, after :meth:`messages` also of that pass.

    ``counts`` are the messages per topic, as the index says or as counted from the front; ``definitions`` are the
    texts of the types by name, each with its language.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.breaks: list[str] = []
        self.definitions: dict[str, tuple[str, str]] = {}
        self.counts: Counter[TopicType] = Counter()
        self.start_ns: int | None = None  # the first time of arrival, None without messages
        self._size = path.stat().st_size
        self._opened_bytes = 0  # of chunks, in the pass that is under way
        self._stream = path.open("rb")
        self._channels: dict[int, TopicType] = {}
        self._chunks: list[ChunkIndex] = []
        if not self._read_index():
            for row in self._from_front():
                self.counts[row.channel] += 1
                self.start_ns = row.received_ns if self.start_ns is None else min(self.start_ns, row.received_ns)

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        """The messages of some topics in order of arrival; of a file without an index in order of writing."""
        self._opened_bytes = 0
        if not self.counts:
            return  # why, the first look said
        for row in self._by_index(topics) if self._chunks else self._from_front():
            if row.channel.topic in topics:
                yield row

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _note(self, why: str) -> None:
        if why not in self.breaks:
            self.breaks.append(why)

    def _read_index(self) -> bool:
        """Take topics, counts and chunks from the summary; False where it is absent or contradicts itself."""
        try:
            summary = read_summary(self._stream, self._size)
        except Exception:  # noqa: BLE001 - an end that breaks off may read as anything
            return False
        if summary is None or not summary.chunk_indexes or (numbers := _counts_of(summary)) is None:
            return False
        for number, channel in summary.channels.items():
            self._declare(number, channel, summary.schemas.get(channel.schema_id))
            self.counts[self._channels[number]] += numbers[number]
        self._chunks = summary.chunk_indexes
        self.start_ns = min(chunk.message_start_time for chunk in self._chunks)
        return True

    def _declare(self, number: int, channel: Channel, schema: Schema | None) -> None:
        self._channels[number] = TopicType(channel.topic, schema.name if schema else "", channel.message_encoding)
        if schema is not None:
            self.definitions[schema.name] = schema.encoding, schema.data.decode("utf-8", "replace")

    def _by_index(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        wanted = {number: channel for number, channel in self._channels.items() if channel.topic in topics}
        held = Counter[str]()
        chunks = [
            self._chunk_rows(chunk, wanted, held)
            for chunk in self._chunks
            if not chunk.message_index_offsets or not wanted.keys().isdisjoint(chunk.message_index_offsets)
        ]
        for _, _, row in heapq.merge(*chunks, key=lambda each: each[:2]):
            if row is not None:
                yield row

    def _chunk_rows(
        self, chunk: ChunkIndex, wanted: dict[int, TopicType], held: Counter[str]
    ) -> Iterator[tuple[int, int, StoredMessage | None]]:
        """(time of arrival, place of the chunk, message) in order of time; a first one without a message.

        That one has the chunk open only when the merge comes to its time.
        """
        start = chunk.chunk_start_offset
        yield chunk.message_start_time, 0, None
        try:
            body = self._chunk_body(start)
        except ValueError as error:
            self._note(f"the chunk at byte {start} cannot be read ({error})")
            return
        size = CHUNK_HEAD.unpack_from(body)[2]
        if held["bytes"] + size > _MOST_OPEN_BYTES:
            raise TooLargeError(f"chunks of more than {_MOST_OPEN_BYTES} bytes lie over one another in time")
        held["bytes"] += size
        self._opened_bytes += size
        check_growth(self._opened_bytes, self._size)
        try:
            data = chunk_content(body)
            times, offsets, ends, numbers = _message_places(data, wanted, len(body))
        except Exception as error:  # noqa: BLE001 - a damaged chunk fails in many ways (zstd, lz4, struct, checksum)
            self._note(f"the chunk at byte {start} cannot be read ({error})")
            held["bytes"] -= size
            return
        for place in np.argsort(times, kind="stable").tolist():
            channel, body = wanted[numbers[place]], data[offsets[place] : ends[place]]
            yield times[place], start, StoredMessage(channel, times[place], body)
        held["bytes"] -= size

    def _chunk_body(self, start: int) -> bytes:
        self._stream.seek(start)
        head = self._stream.read(RECORD_HEAD.size)
        opcode, length = RECORD_HEAD.unpack(head) if len(head) == RECORD_HEAD.size else (0, 0)
        if opcode != Opcode.CHUNK or not CHUNK_HEAD.size <= length <= self._size - start:
            raise ValueError("there is none")
        check_size(length, "a chunk")
        return self._stream.read(length)

    def _from_front(self) -> Iterator[StoredMessage]:
        stream = self._stream
        stream.seek(0)
        if stream.read(len(MAGIC)) != MAGIC:
            self._note("it does not begin like an mcap file")
            return
        try:
            yield from self._record_rows(stream, self._size, self._size, {})
        except Exception as error:  # noqa: BLE001 - damage shows itself as many kinds (lz4, zstd, struct)
            self._note(f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")

    def _record_rows(  # noqa: C901 - a branch per kind of record
        self, stream: BinaryIO, size: int, stored_bytes: int, schemas: dict[int, Schema], is_chunk: bool = False
    ) -> Iterator[StoredMessage]:
        """The messages of a file or of a chunk's records, up to where they make no sense (ValueError)."""
        end = stream.tell()
        for count, record in enumerate(records(stream, size), start=1):
            check_count(count, stored_bytes)
            start, end, opcode, body, is_whole = record
            if not Opcode.HEADER <= opcode <= Opcode.DATA_END:
                raise ValueError(f"no mcap record at byte {start}")
            if opcode == Opcode.DATA_END and not is_chunk:
                return
            if opcode == Opcode.CHUNK and not is_chunk:
                yield from self._chunk_from_front(record, schemas)
            elif is_whole and opcode == Opcode.MESSAGE:
                if record.is_too_large:
                    self._note(f"the message at byte {start} has {end - start} bytes, at most {LARGEST_BYTES} are read")
                    continue
                number, _, received_ns, _ = MESSAGE_HEAD.unpack_from(body)
                if number not in self._channels:
                    raise ValueError(f"a message of the unknown channel {number}")
                yield StoredMessage(self._channels[number], received_ns, body[MESSAGE_HEAD.size :])
            elif is_whole and opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._declare_record(opcode, body, schemas)
            if not is_whole:
                raise ValueError(f"the record at byte {start} breaks off")
        if not is_chunk or end != size:
            raise ValueError(f"the file ends at byte {size} in the middle of the recording")

    def _chunk_from_front(self, record: Record, schemas: dict[int, Schema]) -> Iterator[StoredMessage]:
        stored_bytes, why = record.end - record.start, f"the chunk at byte {record.start} cannot be read to its end"
        try:
            check_size(stored_bytes, "a chunk")
            data = chunk_content(record.body, is_whole=record.is_whole)
        except Exception as error:  # noqa: BLE001 - as above
            self._note(f"{why} ({error})")
            return
        self._opened_bytes += len(data)
        check_growth(self._opened_bytes, self._size)
        try:
            # Of a chunk that breaks off too: the messages at its beginning are whole.
            yield from self._record_rows(BytesIO(data), len(data), stored_bytes, schemas, is_chunk=True)
        except Exception as error:  # noqa: BLE001 - as above
            self._note(f"{why} ({error})")

    def _declare_record(self, opcode: int, body: bytes, schemas: dict[int, Schema]) -> None:
        """Note a schema or a channel; of one whose end is damaged only the names are read."""
        fields = Fields(body)
        if opcode == Opcode.SCHEMA:
            number, name = fields.number(2), fields.text()
            try:
                schemas[number] = Schema.read(body)
            except Exception:  # noqa: BLE001 - bytes that are no text, a length beyond the record
                schemas[number] = Schema(id=number, name=name, encoding="", data=b"")
            return
        number, schema_id, topic = fields.number(2), fields.number(2), fields.text()
        try:
            encoding = fields.text()
        except Exception:  # noqa: BLE001 - as above
            encoding = "cdr"
        channel = Channel(id=number, schema_id=schema_id, topic=topic, message_encoding=encoding, metadata={})
        self._declare(number, channel, schemas.get(schema_id))


def _counts_of(summary: Summary) -> Counter[int] | None:
    """Messages per channel; None where the parts of the summary contradict each other, or do not tell."""
    in_chunks: Counter[int] = Counter()
    for chunk in summary.chunk_indexes:
        in_chunks.update(_counts(chunk))
    if summary.statistics is None:
        return in_chunks if in_chunks and names_all(summary, in_chunks) else None
    counts = Counter(summary.statistics.channel_message_counts)
    # Message indexes are optional, and so is the whole summary but for its chunks.
    chunks = len({chunk.chunk_start_offset for chunk in summary.chunk_indexes})
    fits = chunks == len(summary.chunk_indexes) == summary.statistics.chunk_count
    fits = fits and (not in_chunks or +counts == +in_chunks)
    return counts if fits and names_all(summary, counts) else None


def _counts(chunk: ChunkIndex) -> dict[int, int]:
    """Messages per channel, from the lengths of the chunk's message indexes."""
    places = sorted((offset, number) for number, offset in chunk.message_index_offsets.items())
    end = chunk.chunk_start_offset + chunk.chunk_length + chunk.message_index_length
    ends = [offset for offset, _ in places[1:]] + [end] * bool(places)
    return {
        number: max(0, last - first - _INDEX_HEAD) // _INDEX_ENTRY
        for (first, number), last in zip(places, ends, strict=True)
    }


def _message_places(
    data: bytes, wanted: Collection[int], stored_bytes: int
) -> tuple[array[int], array[int], array[int], array[int]]:
    """Time, begin, end and channel of the wanted messages of a chunk's records, which take so many bytes in the file.

    Raises:
        ValueError: more messages than the chunk has bytes in the file, or records that make no sense.
    """
    times, begins, ends, numbers = array("Q"), array("Q"), array("Q"), array("H")
    at, size, head, message = 0, len(data), RECORD_HEAD.size, MESSAGE_HEAD.size
    count = 0
    while at + head <= size:
        opcode, length = RECORD_HEAD.unpack_from(data, at)
        begin = at + head
        at = begin + length
        count += 1
        check_count(count, stored_bytes)
        if at > size:
            raise ValueError("a record that is longer than its chunk")
        if opcode == Opcode.MESSAGE:
            number, _, time_ns, _ = MESSAGE_HEAD.unpack_from(data, begin)
            if number in wanted:
                times.append(time_ns)
                begins.append(begin + message)
                ends.append(at)
                numbers.append(number)
    if at != size:
        raise ValueError("half a record at its end")
    return times, begins, ends, numbers
