"""The records of an mcap file, as bytes and as dataclasses. The layout is that of https://mcap.dev/spec.

Standard library only: a recorder runs where no mcap library is installed.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = b"\x89MCAP0\r\n"
RECORD_HEAD = struct.Struct("<BQ")  # opcode, length
CHUNK_HEAD = struct.Struct("<QQQII")  # first and last time, size, checksum, length of the compression's name
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time; the data follows
FOOTER_BYTES = RECORD_HEAD.size + 20
_NUMBERS = {1: struct.Struct("<B"), 2: struct.Struct("<H"), 4: struct.Struct("<I"), 8: struct.Struct("<Q")}
_OFFSET, _ROW = struct.Struct("<HQ"), struct.Struct("<QQ")


class Opcode(IntEnum):
    """What a record is."""

    HEADER = 1
    FOOTER = 2
    SCHEMA = 3
    CHANNEL = 4
    MESSAGE = 5
    CHUNK = 6
    MESSAGE_INDEX = 7
    CHUNK_INDEX = 8
    ATTACHMENT = 9
    ATTACHMENT_INDEX = 10
    STATISTICS = 11
    METADATA = 12
    METADATA_INDEX = 13
    SUMMARY_OFFSET = 14
    DATA_END = 15


class Fields:
    """The fields of a record's body, read one after the other; ``at`` is the byte where the next begins."""

    def __init__(self, body: bytes) -> None:
        self.at = 0
        self._body = body

    def number(self, size: int) -> int:
        """A number of 1, 2, 4 or 8 bytes (struct.error: it breaks off)."""
        [value] = _NUMBERS[size].unpack(self._body[self.at : self.at + size])
        self.at += size
        return int(value)

    def data(self, size: int) -> bytes:
        """So many bytes, or those that are left (ValueError: none are)."""
        found = self._body[self.at : self.at + size]
        if size and not found:
            raise ValueError("a record that breaks off")
        self.at += len(found)
        return found

    def text(self) -> str:
        """A text behind its length."""
        return self.data(self.number(4)).decode("utf-8")

    def pairs(self, row: struct.Struct) -> list[Any]:
        """Rows of numbers behind their length in bytes (ValueError, struct.error: they break off)."""
        size = self.number(4)
        if len(found := self.data(size)) < size:
            raise ValueError("a record that breaks off")
        return list(row.iter_unpack(found))

    def texts(self) -> dict[str, str]:
        """Texts by name behind their length in bytes."""
        end = self.number(4) + self.at
        found = {}
        while self.at < end:
            name = self.text()
            found[name] = self.text()
        return found


def _text(value: str) -> bytes:
    data = value.encode()
    return _NUMBERS[4].pack(len(data)) + data


def _behind_length(parts: Iterable[bytes], size: int = 4) -> bytes:
    data = b"".join(parts)
    return _NUMBERS[size].pack(len(data)) + data


# How a field lies in a record: read, and written.
_READ: dict[str, Callable[[Fields], Any]] = {
    "text": Fields.text,
    "texts": Fields.texts,
    "data4": lambda fields: fields.data(fields.number(4)),
    "data8": lambda fields: fields.data(fields.number(8)),
    "offsets": lambda fields: dict(fields.pairs(_OFFSET)),
    "rows": lambda fields: fields.pairs(_ROW),
    **{f"number{size}": partial(Fields.number, size=size) for size in _NUMBERS},
}
_WRITE: dict[str, Callable[[Any], bytes]] = {
    "text": _text,
    "texts": lambda value: _behind_length(_text(name) + _text(text) for name, text in value.items()),
    "data4": lambda value: _behind_length([value]),
    "data8": lambda value: _behind_length([value], 8),
    "offsets": lambda value: _behind_length(_OFFSET.pack(*pair) for pair in value.items()),
    "rows": lambda value: _behind_length(_ROW.pack(*row) for row in value),
    **{f"number{size}": number.pack for size, number in _NUMBERS.items()},
}
SomeRecord = TypeVar("SomeRecord", bound="Content")


@dataclass
class Content:
    """What a record says; its fields lie in the file in their order here, each as ``layout`` names it."""

    opcode: ClassVar[Opcode]
    layout: ClassVar[tuple[str, ...]]

    @classmethod
    def read(cls, body: bytes) -> Self:
        """From a record's body.

        Raises:
            ValueError, struct.error: it breaks off, or a text is none.
        """
        fields = Fields(body)
        return cls(*(_READ[kind](fields) for kind in cls.layout))

    def to_bytes(self) -> bytes:
        """The whole record."""
        values = (getattr(self, each.name) for each in dataclasses.fields(self))
        body = b"".join(_WRITE[kind](value) for kind, value in zip(self.layout, values, strict=True))
        return RECORD_HEAD.pack(self.opcode, len(body)) + body


@dataclass
class Header(Content):
    """The first record of a file."""

    opcode = Opcode.HEADER
    layout = ("text", "text")
    profile: str
    library: str


@dataclass
class Footer(Content):
    """The last record; a summary that begins at byte 0 is none."""

    opcode = Opcode.FOOTER
    layout = ("number8", "number8", "number4")
    summary_start: int
    summary_offset_start: int
    summary_crc: int


@dataclass
class Schema(Content):
    """A message type: its name, and its definition in the language ``encoding``."""

    opcode = Opcode.SCHEMA
    layout = ("number2", "text", "text", "data4")
    id: int
    name: str
    encoding: str
    data: bytes


@dataclass
class Channel(Content):
    """A topic."""

    opcode = Opcode.CHANNEL
    layout = ("number2", "number2", "text", "text", "texts")
    id: int
    schema_id: int
    topic: str
    message_encoding: str
    metadata: dict[str, str]


@dataclass
class Chunk(Content):
    """Records in one piece, perhaps compressed."""

    opcode = Opcode.CHUNK
    layout = ("number8", "number8", "number8", "number4", "text", "data8")
    message_start_time: int
    message_end_time: int
    uncompressed_size: int
    uncompressed_crc: int
    compression: str
    data: bytes


@dataclass
class MessageIndex(Content):
    """(time of arrival, offset in the chunk) of a channel's messages."""

    opcode = Opcode.MESSAGE_INDEX
    layout = ("number2", "rows")
    channel_id: int
    records: list[tuple[int, int]]


@dataclass
class ChunkIndex(Content):
    """Where a chunk lies, and the message indexes behind it, by channel."""

    opcode = Opcode.CHUNK_INDEX
    layout = ("number8", "number8", "number8", "number8", "offsets", "number8", "text", "number8", "number8")
    message_start_time: int
    message_end_time: int
    chunk_start_offset: int
    chunk_length: int
    message_index_offsets: dict[int, int]
    message_index_length: int
    compression: str
    compressed_size: int
    uncompressed_size: int


@dataclass
class Attachment(Content):
    """A file within the file."""

    opcode = Opcode.ATTACHMENT
    layout = ("number8", "number8", "text", "text", "data8")
    log_time: int
    create_time: int
    name: str
    media_type: str
    data: bytes


@dataclass
class AttachmentIndex(Content):
    """Where one lies."""

    opcode = Opcode.ATTACHMENT_INDEX
    layout = ("number8", "number8", "number8", "number8", "number8", "text", "text")
    offset: int
    length: int
    log_time: int
    create_time: int
    data_size: int
    name: str
    media_type: str


@dataclass
class Statistics(Content):
    """What a file holds, counted."""

    opcode = Opcode.STATISTICS
    layout = ("number8", "number2", "number4", "number4", "number4", "number4", "number8", "number8", "offsets")
    message_count: int
    schema_count: int
    channel_count: int
    attachment_count: int
    metadata_count: int
    chunk_count: int
    message_start_time: int
    message_end_time: int
    channel_message_counts: dict[int, int]


@dataclass
class Metadata(Content):
    """Texts by name."""

    opcode = Opcode.METADATA
    layout = ("text", "texts")
    name: str
    metadata: dict[str, str]


@dataclass
class MetadataIndex(Content):
    """Where they lie."""

    opcode = Opcode.METADATA_INDEX
    layout = ("number8", "number8", "text")
    offset: int
    length: int
    name: str
