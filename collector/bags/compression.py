"""Compressed bytes of a bag, opened within bounds: a few bytes must not become gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from collector.common.errors import MonoError, require

ZSTD_MAGIC, LZ4_MAGIC = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
# Of a chunk, a message or a row. The largest honest one is a raw picture of MAX_PIXELS (collector.ros.images).
LARGEST_BYTES = 2**28
# What a file holds beyond the first size is refused when it is so many times as long as the file.
_FREE_BYTES, _MOST_TIMES = 2**30, 1000
_BLOCK = 2**20
_LZ4_BLOCK = 2**16  # lz4 makes at most 255 times as much of it


class TooLargeError(ValueError):
    """Something claims more bytes than any recording has in one piece."""


def check_size(size: int, what: str) -> None:
    """Raise TooLargeError for a piece beyond :data:`LARGEST_BYTES`."""
    if size > LARGEST_BYTES:
        raise TooLargeError(f"{what} of {size} bytes, at most {LARGEST_BYTES} are read")


def check_growth(size: int, stored_bytes: int) -> None:
    """Raise TooLargeError where a file of ``stored_bytes`` holds out of all proportion more."""
    if size > max(_FREE_BYTES, _MOST_TIMES * stored_bytes):
        raise TooLargeError(f"{stored_bytes} bytes grow beyond {size} when they are decompressed")


def decompressed(compression: str, data: bytes, size: int = LARGEST_BYTES) -> bytes:
    """The bytes behind ``""``, ``"lz4"`` or ``"zstd"``; of data that break off, those that they still give.

    ``size`` is what they should be. More than that (and one byte) is not made.

    Raises:
        TooLargeError: more than :data:`LARGEST_BYTES`.
        Exception: of many kinds, where the data are damaged.
    """
    most = min(size, LARGEST_BYTES) + 1
    if compression == "":
        found = data
    elif compression == "lz4":
        found = bytes(require("lz4.frame").LZ4FrameDecompressor().decompress(data, max_length=most))
    elif compression == "zstd":
        found = _unzstd(data, most)
    else:
        raise ValueError(f"the unknown compression {compression!r}")
    check_size(len(found), "a compressed piece")
    return found


def _unzstd(data: bytes, most: int) -> bytes:
    """All frames of the data; the buffer is made as large as the first one says, or grows."""
    zstandard = require("zstandard")
    said = zstandard.frame_content_size(data)
    wanted = min(most, said + 1) if said > 0 else min(most, _BLOCK)
    pieces: list[bytes] = []
    with zstandard.ZstdDecompressor().stream_reader(BytesIO(data), read_across_frames=True) as reader:
        while most > 0 and (piece := reader.read(min(wanted, most))):
            pieces.append(piece)
            most, wanted = most - len(piece), _BLOCK
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def message_bytes(data: bytes) -> bytes:
    """A message as it was sent: `ros2 bag record --compression-mode message` stores a zstd frame per message.

    No serialised message begins like one, so the bytes themselves tell.
    """
    if data[:4] == ZSTD_MAGIC:
        return decompressed("zstd", data)
    return decompressed("lz4", data) if data[:4] == LZ4_MAGIC else data


def unpack_file(source: Path, target: Path) -> str:
    """Decompress a file (zstd or lz4); returns why not all of it could be had, empty where it could.

    Raises:
        MonoError: it grows beyond all measure.
    """
    zstandard = require("zstandard")
    size = source.stat().st_size
    written = 0
    with source.open("rb") as stream, target.open("wb") as out:
        is_lz4 = stream.read(len(LZ4_MAGIC)) == LZ4_MAGIC
        stream.seek(0)
        zstd = zstandard.ZstdDecompressor()
        reader = zstd.stream_reader(stream, read_across_frames=True)
        blocks = _lz4_blocks(stream) if is_lz4 else iter(lambda: reader.read(_BLOCK), b"")
        while True:
            try:
                block = next(blocks, None)
            except (zstandard.ZstdError, RuntimeError, EOFError) as error:
                return f"the compressed file breaks off: {error}"
            if block is None:
                return ""
            written += len(block)
            try:
                check_growth(written, size)
            except TooLargeError as error:
                do = "leave it out, or decompress it yourself: zstd -d"
                raise MonoError(f"{source}: {error}", "a compressed recording", do) from error
            out.write(block)


def _lz4_blocks(stream: BinaryIO) -> Iterator[bytes]:
    decompressor = require("lz4.frame").LZ4FrameDecompressor
    frame, data = decompressor(), b""
    while data := data or stream.read(_LZ4_BLOCK):
        if frame.eof:  # one frame may follow another
            frame = decompressor()
        yield bytes(frame.decompress(data))
        data = frame.unused_data or b""
    if not frame.eof:
        raise EOFError("its end is missing")


def pack_file(source: Path, target: Path) -> None:
    """Compress a file as `ros2 bag record --compression-mode file` does at its end."""
    part = target.with_name(target.name + ".part")
    with source.open("rb") as stream, part.open("wb") as out:
        require("zstandard").ZstdCompressor(write_checksum=True).copy_stream(stream, out, size=source.stat().st_size)
    part.replace(target)
