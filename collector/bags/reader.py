"""Bags read without ROS, by rosbags: sqlite3 and mcap (written by :mod:`collector.bags.writer`).

Everything is keyed by header stamps; a message's time of arrival is passed along only for messages that carry none.
Reading streams: one message is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collector.bags.metadata import METADATA_FILE
from collector.bags.truncated import TruncatedReader
from collector.common.errors import MonoError
from collector.ros.conversions import stamp_ns_of, yaw_of
from collector.ros.images import FrameError, RawFrame, image_rows
from collector.ros.message_builder import DEFINITIONS
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, Message

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys.store import Typestore

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
# What a pose can be read from; only odometry tells the speed too.
POSE_TYPES = (ODOMETRY.type, "geometry_msgs/msg/PoseWithCovarianceStamped", "geometry_msgs/msg/PoseStamped")
_LATEST_NS = 2**63 - 1


@dataclass(frozen=True)
class OdometryRow:
    """One odometry or pose message: pose in the map, forward speed in the kart's frame (NaN where it tells none)."""

    stamp_ns: int
    received_ns: int
    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """ROS 2 Humble's message types and the project's own (``collector/msg``), as rosbags knows them."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    added: dict[str, Any] = {}
    for file in sorted(DEFINITIONS.glob("*/msg/*.msg")):
        name = f"{file.parts[-3]}/msg/{file.stem}"
        if name not in store.fielddefs:
            added.update(get_types_from_msg(file.read_text("utf-8"), name))
    store.register({name: fields for name, fields in added.items() if name not in store.fielddefs})
    return store


class BagReader:
    """A bag opened for reading; made by :func:`open_bag`.

    Look at ``breaks_off`` after reading: why not all could be read, empty where nothing is wrong.
    """

    def __init__(self, path: Path, reader: AnyReader | TruncatedReader, breaks_off: str = "") -> None:
        self.path, self._reader, self.breaks_off = path, reader, breaks_off
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
        self.counts: dict[str, int] = {}  # messages by topic, as the bag's index says
        for connection in reader.connections:
            self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount

    def require_topic(self, name: str, purpose: str, types: Sequence[str], option: str, cure: str) -> None:
        """Raise a MonoError unless the bag has messages of a topic, of a type that can be read.

        It names what is missing and what the bag has instead, first of all topics that would do.
        """
        if self.counts.get(name, 0):
            if self.topics[name] in types:
                return
            found = f"{name} in {self.path} has the type {self.topics[name]}"
            raise MonoError(found, " or ".join(types), f"choose another {option}")
        held = sorted(topic for topic, count in self.counts.items() if count)
        others = [topic for topic in held if self.topics[topic] in types]
        found = f"the bag {self.path} holds no messages of {name} ({purpose}); it holds {', '.join(held) or 'nothing'}"
        expected = f"{name} of the type {' or '.join(types)}"
        raise MonoError(found, expected, f"use {option} {others[0]}" if others else cure)

    def image_topic(self, wanted: str | None = None) -> str:
        """The camera topic: the one wanted, else our JPEG topic, else the raw one.

        Raises:
            MonoError: none there, or not an image type.
        """
        candidates = [wanted] if wanted else [CAMERA_JPEG.name, CAMERA_IMAGE.name]
        name = next((name for name in candidates if self.counts.get(name, 0)), candidates[-1])
        cure = "record with the camera on (AWSIM: --camera gpu), for example with alpamayo-mono record"
        self.require_topic(name, "the camera", IMAGE_TYPES, "--image-topic", cure)
        return name

    def messages(self, topic: str) -> Iterator[tuple[int, Message | None]]:
        """(received_ns, message) of one topic in order of arrival; undecodable messages come as None."""
        for _, received_ns, message in self.messages_of([topic]):
            yield received_ns, message

    def messages_of(self, topics: Sequence[str]) -> Iterator[tuple[str, int, Message | None]]:
        """(topic, received_ns, message) of several topics in one pass; those the bag lacks are left out."""
        for topic, received_ns, raw in self._raw(topics):
            yield topic, received_ns, self._decoded(raw, self.topics[topic])

    def frames(self, topic: str) -> Iterator[RawFrame | None]:
        """The camera's messages in order of arrival; None where a message cannot be read at all."""
        for received_ns, message in self.messages(topic):
            if message is None:
                yield None
                continue
            stamp_ns, frame_id = header_stamp_ns(message), message.header.frame_id
            if hasattr(message, "encoding"):
                try:
                    pixels = image_rows(message.height, message.width, message.encoding, message.step, message.data)
                except FrameError:
                    yield None
                else:
                    yield RawFrame(stamp_ns, received_ns, frame_id, None, pixels, message.encoding)
            else:
                yield RawFrame(stamp_ns, received_ns, frame_id, bytes(message.data))

    def odometry(self, topic: str = ODOMETRY.name) -> Iterator[OdometryRow | None]:
        """Poses of a topic of one of POSE_TYPES; None where a message cannot be read."""
        for received_ns, message in self.messages(topic):
            yield None if message is None else odometry_row(received_ns, message)

    def _raw(self, topics: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        connections: list[Any] = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                # A damaged record may claim a time beyond what int64 holds.
                yield connection.topic, min(received_ns, _LATEST_NS), raw
        except Exception as error:  # noqa: BLE001
            # rosbags raises many kinds on a damaged file (struct, zstd, its own): all mean that here the reading ends.
            self.breaks_off = f"{type(error).__name__}: {error}"

    def _decoded(self, raw: bytes, type_name: str) -> Message | None:
        store = typestore()
        try:
            # Our own definition first: the bag's embedded one may be damaged as well.
            if type_name in store.fielddefs:
                return store.deserialize_cdr(raw, type_name)
            return self._reader.deserialize(raw, type_name)
        except Exception:  # noqa: BLE001 - a damaged message may fail anywhere inside the decoder; the caller counts it
            return None


@contextmanager
def open_bag(path: Path | str) -> Iterator[BagReader]:
    """Open a bag folder (metadata.yaml and files) or a single .mcap / .db3 file.

    A recording that was never finished or breaks off is opened too, with ``breaks_off`` set: see
    :mod:`collector.bags.truncated`.

    Raises:
        MonoError: absent, or nothing in it can be read.
    """
    from rosbags.highlevel import AnyReader

    place = Path(path)
    if not place.exists():
        raise MonoError(f"no bag at {place}", "a bag folder or an .mcap or .db3 file", "check the path")
    reader: AnyReader | TruncatedReader
    breaks_off = ""
    try:
        reader = AnyReader([place], default_typestore=typestore())
        reader.open()
    except Exception as error:
        reader = TruncatedReader(place)
        if not reader.connections:
            found = f"{place} cannot be opened as a bag, and no message can be read from it: {error}"
            do = "check the path and that something was recorded; a file that ends in .zstd is read after zstd -d"
            raise MonoError(found, "a bag folder with its files, or an .mcap or .db3 file", do) from error
        breaks_off = reader.breaks_off or str(error)
        if place.is_dir() and not (place / METADATA_FILE).exists():
            breaks_off += f"; the recording was never finished (for other programs: alpamayo-mono recover {place})"
    try:
        yield BagReader(place, reader, breaks_off)
    finally:
        reader.close()


def header_stamp_ns(message: Message) -> int:
    """``header.stamp`` (or a bare ``stamp``) of a message in nanoseconds."""
    return stamp_ns_of(message.header.stamp if hasattr(message, "header") else message.stamp)


def odometry_row(received_ns: int, message: Message) -> OdometryRow:
    """The row of a message of one of POSE_TYPES; those without a twist have no speed (NaN)."""
    pose = message.pose if hasattr(message.pose, "position") else message.pose.pose
    x_m, y_m, yaw_rad = float(pose.position.x), float(pose.position.y), yaw_of(pose.orientation)
    speed_mps = float(message.twist.twist.linear.x) if hasattr(message, "twist") else float("nan")
    return OdometryRow(header_stamp_ns(message), received_ns, x_m, y_m, yaw_rad, speed_mps)
