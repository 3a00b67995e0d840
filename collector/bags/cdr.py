"""Two types of serialised messages (CDR, as DDS sends them), written and found their way in without ROS or rosbags."""

from __future__ import annotations

import struct
from typing import NamedTuple

from collector.geometry.constants import NS_PER_S

_LITTLE = b"\x00\x01\x00\x00"  # the encapsulation; what follows is aligned from behind it
_MOST_DISTORTION = 64  # coefficients; no lens model has more than 14


class Cursor:
    """A place in a serialised message, which numbers move on from, aligned to their size.

    Raises (all methods):
        ValueError, struct.error: the message ends before.
    """

    def __init__(self, cdr: bytes | bytearray | memoryview) -> None:
        if len(cdr) < len(_LITTLE) or bytes(cdr[:2]) not in (b"\x00\x00", b"\x00\x01"):
            raise ValueError("no plain CDR")
        self.order = "<" if cdr[1] else ">"
        self.at = len(_LITTLE)
        self._cdr = cdr

    def place(self, size: int, count: int = 1) -> int:
        """Where ``count`` numbers of ``size`` bytes begin; the cursor then stands behind them."""
        begin = self.at + (len(_LITTLE) - self.at) % size
        self.at = begin + size * count
        if self.at > len(self._cdr):
            raise ValueError("a message that breaks off")
        return begin

    def number(self) -> int:
        """An unsigned number of four bytes."""
        [value] = struct.unpack_from(f"{self.order}I", self._cdr, self.place(4))
        return int(value)

    def skip_text(self) -> None:
        """A text behind its length."""
        self.place(1, self.number())

    def skip_header(self) -> None:
        """A std_msgs/Header."""
        self.place(4, 2)
        self.skip_text()


class CameraInfoPlaces(NamedTuple):
    """Where the numbers of a serialised sensor_msgs/CameraInfo lie that describe the picture's size."""

    order: str  # of the bytes, as struct writes it
    size: int  # height and width
    k: int  # 9 floats of 8 bytes
    p: int  # 12
    roi: int  # x offset, y offset, height, width


def camera_info_places(cdr: bytes | bytearray | memoryview) -> CameraInfoPlaces:
    """Find them.

    Raises:
        ValueError, struct.error: the message breaks off, or is none.
    """
    cursor = Cursor(cdr)
    cursor.skip_header()
    size = cursor.place(4, 2)
    cursor.skip_text()
    if (distortion := cursor.number()) > _MOST_DISTORTION:
        raise ValueError(f"{distortion} coefficients of distortion")
    if distortion:
        cursor.place(8, distortion)
    k = cursor.place(8, 9)
    cursor.place(8, 9)
    p = cursor.place(8, 12)
    cursor.place(4, 2)
    roi = cursor.place(4, 4)
    cursor.place(1)
    return CameraInfoPlaces(cursor.order, size, k, p, roi)


def compressed_image(stamp_ns: int, frame_id: str, stored_as: str, data: bytes | memoryview) -> memoryview:
    """A sensor_msgs/CompressedImage: its header, the text of its format, and the picture's bytes."""
    cdr = bytearray(_LITTLE)
    cdr += struct.pack("<iI", *divmod(stamp_ns, NS_PER_S))
    for text in (frame_id, stored_as):
        held = text.encode() + b"\0"
        cdr += struct.pack("<I", len(held)) + held
        cdr += bytes(-len(cdr) % 4)
    cdr += struct.pack("<I", len(data))
    cdr += data
    return memoryview(cdr)
