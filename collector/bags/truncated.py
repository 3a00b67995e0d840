"""What can still be read of bag files that were never finished or break off: everything before the break.

rosbags needs the index that a recorder writes last. Here mcap and sqlite3 files are read from the front, record by
record, up to the first thing that makes no sense.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn
from urllib.parse import quote

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode

from collector.bags.mcap_records import CHUNK_HEAD, MAGIC, MESSAGE_HEAD, reading_order, records
from collector.common.errors import MonoError


class _Row(NamedTuple):
    topic: str
    msgtype: str
    received_ns: int
    data: bytes


class TruncatedConnection(NamedTuple):
    """A topic of a truncated bag: name, type, and how many whole messages can be read."""

    topic: str
    msgtype: str
    msgcount: int


class TruncatedReader:
    """Reads the bag files of a folder (in the order of their numbers), or one file; yields what lies before a break.

    Its ``connections`` are the topics that have messages; none where nothing can be read.
    """

    def __init__(self, place: Path) -> None:
        self._files = [place] if place.is_file() else reading_order(place, (".mcap", ".db3"))
        self._breaks: dict[Path, str] = {}
        counts = Counter((row.topic, row.msgtype) for row in self._rows())
        self.connections = [TruncatedConnection(*topic, count) for topic, count in counts.items()]

    @property
    def breaks_off(self) -> str:
        """Where and why the reading ended, per file; empty where every file is whole after all."""
        return "; ".join(f"{file.name}: {why}" for file, why in self._breaks.items())

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[TruncatedConnection, int, bytes]]:
        """(connection, received_ns, serialised message) in the order of the files."""
        wanted = {(c.topic, c.msgtype): c for c in self.connections if c in connections}
        for row in self._rows():
            if connection := wanted.get((row.topic, row.msgtype)):
                yield connection, row.received_ns, row.data

    def deserialize(self, _data: bytes, type_name: str) -> NoReturn:
        """Definitions of types that we do not know are not read from a truncated file."""
        raise MonoError(f"a message of the type {type_name}", "a type of ROS 2 Humble or of collector/msg")

    def close(self) -> None:
        """Nothing is held open."""

    def _rows(self) -> Iterator[_Row]:
        for file in self._files:
            try:
                yield from _sqlite_rows(file) if file.suffix == ".db3" else _mcap_rows(file)
            except Exception as error:  # noqa: BLE001 - damage shows itself as many kinds (lz4, zstd, sqlite3, struct)
                self._breaks[file] = f"{type(error).__name__}: {error}"


def _mcap_rows(file: Path) -> Iterator[_Row]:
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("this is no mcap file")
        yield from _record_rows(stream, file.stat().st_size, {}, {})


def _record_rows(  # noqa: C901 - a branch per kind of record
    stream: BinaryIO, size: int, schemas: dict[int, str], channels: dict[int, tuple[str, str]], is_chunk: bool = False
) -> Iterator[_Row]:
    """The messages of a file or of a chunk's records; names of types and (topic, type) of channels are noted by id.

    Of a schema and a channel only the names are read, since what follows them may be damaged.

    Raises:
        ValueError: it breaks off.
    """
    end = stream.tell()
    for record in records(stream, size):
        start, opcode, body, is_whole = record
        end, reader = record.end, ReadDataStream(BytesIO(body))
        if not Opcode.HEADER <= opcode <= Opcode.DATA_END:
            raise ValueError(f"no mcap record at byte {start}")
        if opcode == Opcode.DATA_END and not is_chunk:
            return
        if opcode == Opcode.CHUNK and not is_chunk:
            # Of a chunk that breaks off too: the messages at its beginning are whole.
            reader.read(CHUNK_HEAD.size - 4)
            data = _decompressed(reader.read_prefixed_string(), body[reader.count + 8 :])
            yield from _record_rows(BytesIO(data), len(data), schemas, channels, is_chunk=True)
        elif is_whole and opcode == Opcode.MESSAGE:
            channel_id, _, received_ns, _ = MESSAGE_HEAD.unpack_from(body)
            if channel_id not in channels:
                raise ValueError(f"a message of the unknown channel {channel_id}")
            yield _Row(*channels[channel_id], received_ns, body[MESSAGE_HEAD.size :])
        elif is_whole and opcode == Opcode.SCHEMA:
            schema_id = reader.read2()
            schemas[schema_id] = reader.read_prefixed_string()
        elif is_whole and opcode == Opcode.CHANNEL:
            channel_id, schema_id = reader.read2(), reader.read2()
            channels[channel_id] = reader.read_prefixed_string(), schemas.get(schema_id, "")
        if not is_whole:
            raise ValueError(f"the record at byte {start} breaks off")
    if not is_chunk or end != size:
        raise ValueError(f"the file ends at byte {size} in the middle of the recording")


def _decompressed(compression: str, data: bytes) -> bytes:
    """A chunk's records; of a chunk that breaks off, those that its bytes still give."""
    if compression == "":
        return data
    if compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    raise ValueError(f"the unknown compression {compression!r}")


def _sqlite_rows(file: Path) -> Iterator[_Row]:
    # immutable: a writer that died may have left locks. In the order of writing, which needs no index.
    address = f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as database:
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        # Without this sqlite refuses a file that is shorter than its header says. Nothing is written.
        database.execute("PRAGMA writable_schema=ON")
        topics = {number: (name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")}
        for number, received_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
            if number not in topics or not isinstance(received_ns, int) or not isinstance(data, bytes):
                raise ValueError("a damaged row")
            yield _Row(*topics[number], received_ns, data)
