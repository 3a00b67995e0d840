"""The segments of a JPEG, walked from the front: its size, its end, and how the camera was held."""

from __future__ import annotations

import re
from collections.abc import Iterator

JPEG_HEAD, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
UPRIGHT = 1
# In the coded data of a scan a marker is 0xff and neither 0 (a 0xff of the data) nor a restart.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_EXIF, _ORIENTATION = b"Exif\x00\x00", 0x0112
_ENTRY_BYTES = 12  # of a table in Exif: tag, type, count, value


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where it begins, where what belongs to it ends) of a JPEG, up to its end or to where it breaks off.

    Walked from the front, since a picture in the picture (a preview) and what is appended have end markers too.
    """
    at = 2
    while at + 4 <= len(data) or data[at : at + 2] == JPEG_END:
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD9
        end = at + 2 + (0 if alone else int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == 0xDA:  # a scan: its coded data reach to the next marker
            found = _NEXT_MARKER.search(data, end)
            if found is None:
                return
            end = found.start()
        yield marker, at, end
        if marker == 0xD9:
            return
        at = end


def jpeg_end(data: bytes) -> int | None:
    """The byte behind the end of a JPEG, None where it breaks off."""
    return next((end for marker, _, end in jpeg_segments(data) if marker == 0xD9), None)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the frame header says, None where there is none."""
    for marker, at, _ in jpeg_segments(data):
        # Of the frame header; the others are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
    return None


def orientation(data: bytes) -> int:
    """How the camera was held, as Exif numbers it (1 is upright); upright where nothing is said of it."""
    if data[:3] != JPEG_HEAD or _EXIF not in data[:4096]:
        return UPRIGHT
    for marker, at, end in jpeg_segments(data):
        if marker == 0xE1 and data[at + 4 : at + 10] == _EXIF:
            return _orientation(data[at + 10 : end])
        if marker == 0xDA:
            break
    return UPRIGHT


def _orientation(tiff: bytes) -> int:
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return UPRIGHT

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]  # one of the two

    table = number(4, 4)
    for at in range(table + 2, table + 2 + number(table, 2) * _ENTRY_BYTES, _ENTRY_BYTES):
        if at + _ENTRY_BYTES > len(tiff):
            break
        if number(at, 2) == _ORIENTATION:
            return number(at + 8, 2)
    return UPRIGHT
