"""Messages into one mcap file, chunk by chunk; its index follows when it is finished."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

from collector.bags.mcap_format import (
    MAGIC,
    MESSAGE_HEAD,
    RECORD_HEAD,
    Channel,
    Chunk,
    ChunkIndex,
    Header,
    MessageIndex,
    Opcode,
    Schema,
)
from collector.bags.mcap_summary import Summary, counted, end_of_file

PROFILE, LIBRARY = "ros2", "alpamayo_mono"


class McapWriter:
    """Writes to a stream, which stays open; the first chunk declares the schemas and channels.

    Chunks are not compressed and end after ``chunk_bytes``, or when :meth:`flush` is called.
    """

    def __init__(
        self, stream: BinaryIO, schemas: Sequence[Schema], channels: Sequence[Channel], chunk_bytes: int
    ) -> None:
        self._stream, self._chunk_bytes = stream, chunk_bytes
        self._summary = Summary({each.id: each for each in schemas}, {each.id: each for each in channels})
        self._counts: Counter[int] = Counter()
        self._first_ns = self._last_ns = 0
        self._chunk = bytearray(b"".join(each.to_bytes() for each in (*schemas, *channels)))
        self._places: dict[int, MessageIndex] = {}  # of the chunk that is being filled
        self._chunk_first_ns = self._chunk_last_ns = 0
        stream.write(MAGIC + Header(PROFILE, LIBRARY).to_bytes())

    def add_message(self, channel_id: int, time_ns: int, data: bytes | memoryview) -> None:
        """Store a message that arrived at this time (OSError: the disk takes no more)."""
        if not self._counts:
            self._first_ns = time_ns
        if not self._places:
            self._chunk_first_ns = self._chunk_last_ns = time_ns
        self._first_ns, self._last_ns = min(self._first_ns, time_ns), max(self._last_ns, time_ns)
        self._chunk_first_ns = min(self._chunk_first_ns, time_ns)
        self._chunk_last_ns = max(self._chunk_last_ns, time_ns)
        self._counts[channel_id] += 1
        self._places.setdefault(channel_id, MessageIndex(channel_id, [])).records.append((time_ns, len(self._chunk)))
        self._chunk += RECORD_HEAD.pack(Opcode.MESSAGE, MESSAGE_HEAD.size + len(data))
        self._chunk += MESSAGE_HEAD.pack(channel_id, 0, time_ns, time_ns)
        self._chunk += data
        if len(self._chunk) > self._chunk_bytes:
            self._end_chunk()

    def flush(self) -> None:
        """End the chunk that is being filled, if it has messages, and hand all to the kernel."""
        self._end_chunk()
        self._stream.flush()

    def finish(self) -> None:
        """Write what is left, the index and the end of the file."""
        self._end_chunk()
        self._summary.statistics = counted(self._summary, self._counts, self._first_ns, self._last_ns)
        self._stream.write(end_of_file(self._summary, self._stream.tell()))
        self._stream.flush()

    def _end_chunk(self) -> None:
        if not self._places:
            return
        data, size = bytes(self._chunk), len(self._chunk)
        start = self._stream.tell()
        chunk = Chunk(self._chunk_first_ns, self._chunk_last_ns, size, zlib.crc32(data), "", data).to_bytes()
        offsets, index = {}, b""
        for channel_id, places in self._places.items():
            offsets[channel_id] = start + len(chunk) + len(index)
            index += places.to_bytes()
        self._stream.write(chunk)
        self._stream.write(index)
        self._summary.chunk_indexes.append(
            ChunkIndex(
                self._chunk_first_ns, self._chunk_last_ns, start, len(chunk), offsets, len(index), "", size, size
            )
        )
        self._chunk.clear()
        self._places.clear()
