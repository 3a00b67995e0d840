"""What can still be read of bag files that were never finished or break off: everything before the break.

rosbags needs the index that a recorder writes last. Here mcap and sqlite3 files are read from the front, record by
record, up to the first thing that makes no sense. The records of mcap: https://mcap.dev/spec.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

from collector.common.errors import MonoError

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _LAST_KNOWN = 0x01, 0x03, 0x04, 0x05, 0x06, 0x0F, 0x0F


class _Row(NamedTuple):
    topic: str
    msgtype: str
    received_ns: int
    data: bytes


@dataclass(frozen=True)
class TornConnection:
    """A topic of a torn bag: name, type, and how many whole messages can be read."""

    topic: str
    msgtype: str
    msgcount: int


class TornReader:
    """Reads the bag files of a folder (in the order of their numbers), or one file; yields what lies before a break.

    Attributes:
        connections: topics that have messages; none where nothing can be read.
        breaks_off: where and why the reading ended, per file; empty where every file is whole after all.
    """

    def __init__(self, place: Path) -> None:
        self._files = [place] if place.is_file() else _in_order(place)
        self._breaks: dict[Path, str] = {}
        counts: dict[tuple[str, str], int] = {}
        for row in self._rows():
            counts[row.topic, row.msgtype] = counts.get((row.topic, row.msgtype), 0) + 1
        self.connections = [TornConnection(*topic, count) for topic, count in counts.items()]

    @property
    def breaks_off(self) -> str:
        """Where and why the reading ended."""
        return "; ".join(f"{file.name}: {why}" for file, why in self._breaks.items())

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[TornConnection, int, bytes]]:
        """(connection, received_ns, serialised message) in the order of the files."""
        wanted = {(c.topic, c.msgtype): c for c in self.connections if c in connections}
        for row in self._rows():
            connection = wanted.get((row.topic, row.msgtype))
            if connection is not None:
                yield connection, row.received_ns, row.data

    def deserialize(self, data: bytes, type_name: str) -> Any:
        """Definitions of types that we do not know are not read from a torn file."""
        raise MonoError(f"a message of the type {type_name}", "a type of ROS 2 Humble or of collector/msg")

    def close(self) -> None:
        """Nothing is held open."""

    def _rows(self) -> Iterator[_Row]:
        for file in self._files:
            try:
                yield from _sqlite_rows(file) if file.suffix == ".db3" else _mcap_rows(file)
            except Exception as error:
                # Damage shows itself as many kinds of error (zlib, lz4, zstd, sqlite3, struct): here the reading ends.
                self._breaks[file] = f"{type(error).__name__}: {error}"


def _in_order(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix in (".mcap", ".db3") and file.is_file()]

    def by_numbers(file: Path) -> list[str]:
        # name_10 comes after name_9.
        return [part.zfill(20) for part in re.split(r"(\d+)", file.name)]

    return sorted(files, key=by_numbers)


def _mcap_rows(file: Path) -> Iterator[_Row]:
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("this is no mcap file")
        yield from _McapRecords().rows(stream, file.stat().st_size)


class _McapRecords:
    def __init__(self) -> None:
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def rows(self, stream: BinaryIO, size: int, is_chunk: bool = False) -> Iterator[_Row]:
        """The messages of a file or of a chunk's records; ends at its end.

        Raises:
            ValueError: it breaks off.
        """
        while stream.tell() < size:
            at = stream.tell()
            opcode, length = struct.unpack("<BQ", stream.read(9))
            left = size - stream.tell()
            if not _HEADER <= opcode <= _LAST_KNOWN:
                raise ValueError(f"no mcap record at byte {at}")
            if opcode == _DATA_END and not is_chunk:
                return
            body = stream.read(min(length, left))
            if opcode == _CHUNK and not is_chunk:
                # A torn chunk too: the messages at its beginning are whole.
                yield from self._chunk(body)
            elif length <= left:
                yield from self._record(opcode, body)
            if length > left:
                raise ValueError(f"the record at byte {at} breaks off")
        if not is_chunk:
            raise ValueError(f"the file ends at byte {size} in the middle of the recording")

    def _record(self, opcode: int, body: bytes) -> Iterator[_Row]:
        if opcode == _MESSAGE:
            channel, _, received_ns = struct.unpack_from("<HIQ", body)
            if channel not in self._channels:
                raise ValueError(f"a message of the unknown channel {channel}")
            yield _Row(*self._channels[channel], received_ns, body[22:])
        elif opcode == _SCHEMA:
            (number,) = struct.unpack_from("<H", body)
            self._schemas[number] = _text(body, 2)[0]
        elif opcode == _CHANNEL:
            number, schema = struct.unpack_from("<HH", body)
            self._channels[number] = _text(body, 4)[0], self._schemas.get(schema, "")

    def _chunk(self, body: bytes) -> Iterator[_Row]:
        compression, at = _text(body, 28)
        data = _decompressed(compression, body[at + 8 :])
        yield from self.rows(BytesIO(data), len(data), is_chunk=True)


def _text(body: bytes, at: int) -> tuple[str, int]:
    """A length-prefixed string, and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    return body[at + 4 : at + 4 + length].decode(), at + 4 + length


def _decompressed(compression: str, data: bytes) -> bytes:
    """A chunk's records; of a torn chunk, those that its bytes still give."""
    if compression == "":
        return data
    if compression == "lz4":
        import lz4.frame

        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    if compression == "zstd":
        return bytes(_zstd().ZstdDecompressor().decompress(data))
    raise ValueError(f"the unknown compression {compression!r}")


def _zstd() -> Any:
    """The module that rosbags brings."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _sqlite_rows(file: Path) -> Iterator[_Row]:
    import sqlite3

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
