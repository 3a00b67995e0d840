"""Bags of numbered frames, as other writers leave them, and what the reader gives and says of a bag."""

from __future__ import annotations

from pathlib import Path

from mcap.writer import CompressionType, Writer

from collector.bags.reader import open_bag, typestore
from collector.ros.images import RawFrame
from collector.ros.topics import CAMERA_JPEG
from tests.helpers.synthetic_bag import SECOND, compressed_cdr, jpeg

FRAMES = 60


def frame_numbers(bag: Path) -> list[int]:
    """Which frames a bag gives, by their stamps."""
    with open_bag(bag) as opened:
        frames = list(opened.frames(CAMERA_JPEG.name))
    assert all(isinstance(frame, RawFrame) for frame in frames)
    return [frame.stamp_ns // (SECOND // 10) for frame in frames if isinstance(frame, RawFrame)]


def told(bag: Path) -> str:
    with open_bag(bag) as opened:
        list(opened.frames(CAMERA_JPEG.name))
        return " | ".join([opened.breaks_off, *opened.notes])


def some_frames(first: int = 0, count: int = FRAMES) -> list[tuple[int, bytes]]:
    return [(k * SECOND // 10, compressed_cdr(k * SECOND // 10, jpeg(k))) for k in range(first, first + count)]


def other_writer(path: Path, settings: dict, profile: str = "ros2", encoding: str = "cdr") -> None:
    with path.open("wb") as stream:
        writer = Writer(stream, **({"compression": CompressionType.NONE} | settings))
        writer.start(profile, "another program")
        text = typestore().generate_msgdef(CAMERA_JPEG.type, ros_version=2)[0]
        schema = writer.register_schema(CAMERA_JPEG.type, "ros2msg", text.encode())
        channel = writer.register_channel(CAMERA_JPEG.name, encoding, schema)
        for ns, cdr in some_frames():
            writer.add_message(channel, ns, cdr, ns)
        writer.finish()
