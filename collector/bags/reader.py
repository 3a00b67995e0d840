"""Bags read without ROS: sqlite3 and mcap (written by :mod:`collector.bags.writer`), messages decoded by rosbags.

What a bag holds is asked of its files, never of ``metadata.yaml`` beside them. Everything is keyed by header stamps;
a message's time of arrival is passed along only for messages that carry none. Reading streams: one message
is in memory at a time, and the chunk it lies in.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collector.bags.bag_files import BagFiles, find_bag_files, kind_of, no_recording, order_of_time
from collector.bags.compression import message_bytes, unpack_file
from collector.bags.mcap_messages import McapMessages, TopicType
from collector.bags.sqlite_messages import SqliteMessages, has_journal, undone
from collector.common.errors import MonoError
from collector.ros.conversions import stamp_ns_of, yaw_of
from collector.ros.images import ENCODINGS, UNDECODABLE, BadFrame, FrameError, RawFrame, image_rows
from collector.ros.message_builder import DEFINITIONS, OTHER_FAMILY
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, Message

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
# What a pose can be read from; only odometry tells the speed too.
POSE_TYPES = (ODOMETRY.type, "geometry_msgs/msg/PoseWithCovarianceStamped", "geometry_msgs/msg/PoseStamped")
_LATEST_NS = 2**63 - 1
# Of a file with many damaged places so many are named.
_MOST_BREAKS = 4
_LEAVE_OUT = "leave it out, or record it again"
_UNREADABLE = BadFrame(UNDECODABLE, "a message of the camera cannot be read: its bytes are no message of that type")


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
    for file in sorted([*DEFINITIONS.glob("*/msg/*.msg"), *OTHER_FAMILY.glob("*/msg/*.msg")]):
        name = f"{file.parts[-3]}/msg/{file.stem}"
        if name not in store.fielddefs:
            added.update(get_types_from_msg(file.read_text("utf-8"), name))
    store.register({name: fields for name, fields in added.items() if name not in store.fielddefs})
    return store


class BagReader:
    """A bag opened for reading; made by :func:`open_bag`.

    Look at ``breaks_off`` after reading: why not all could be read, empty where nothing is wrong; and at ``notes``:
    sentences about what was found and tolerated.
    """

    def __init__(self, path: Path, files: Sequence[McapMessages | SqliteMessages], found: BagFiles) -> None:
        self.path, self._files = path, files
        self.notes: list[str] = list(found.notes)
        self.file_count = len(files)
        self._is_finished = path.is_file() or found.has_metadata
        self._own_types: Typestore | None = None
        counts: Counter[TopicType] = Counter()
        for file in files:
            counts.update(file.counts)
        self.counts: dict[str, int] = {}  # messages by topic, as the files' indexes say
        self.topics: dict[str, str] = {}
        self.encodings: dict[str, str] = {}  # how a topic's messages are serialised
        # Where a topic has messages of several types, the commonest is meant.
        for channel, count in sorted(counts.items(), key=lambda each: each[1]):
            self.topics[channel.topic], self.encodings[channel.topic] = channel.type, channel.encoding
            self.counts[channel.topic] = self.counts.get(channel.topic, 0) + count
        self._breaks: list[str] = []

    @property
    def breaks_off(self) -> str:
        """Why not all could be read so far, per file; empty where nothing is wrong."""
        breaks = [f"{file.path.name}: {why}" for file in self._files for why in file.breaks[:_MOST_BREAKS]]
        why = "; ".join([*breaks, *self._breaks])
        if why and not self._is_finished:
            why += f"; the recording was never finished (for other programs: alpamayo-mono recover {self.path})"
        return why

    def require_topic(self, name: str, purpose: str, types: Sequence[str], option: str, cure: str) -> None:
        """Raise a MonoError unless the bag has messages of a topic, of a type that can be read.

        It names what is missing and what the bag has instead, first of all topics that would do.
        """
        if self.counts.get(name, 0):
            if self.topics[name] in types and self.encodings[name] in ("cdr", ""):
                return
            if self.topics[name] in types:
                found = f"{name} in {self.path} is serialised as {self.encodings[name]}"
                raise MonoError(found, "cdr, as ROS 2 does", "convert the bag to ROS 2, or record it again")
            kind = f"the type {self.topics[name]}" if self.topics[name] else "no type: its file names none"
            found = f"{name} in {self.path} has {kind}"
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
        for channel, received_ns, raw in self._raw(topics):
            is_meant = channel.type == self.topics[channel.topic]
            yield channel.topic, received_ns, self._decoded(raw, channel.type) if is_meant else None

    def frames(self, topic: str) -> Iterator[RawFrame | BadFrame]:
        """The camera's messages in order of arrival; of those that cannot be used, why."""
        for received_ns, message in self.messages(topic):
            if message is None:
                yield _UNREADABLE
                continue
            stamp_ns, frame_id = header_stamp_ns(message), message.header.frame_id
            if not hasattr(message, "encoding"):
                yield RawFrame(stamp_ns, received_ns, frame_id, bytes(message.data), encoding=message.format)
                continue
            size, encoding = (message.height, message.width), message.encoding
            try:
                pixels = image_rows(*size, encoding, message.step, message.data, bool(message.is_bigendian))
            except FrameError as error:
                yield BadFrame.of(error)
            else:
                if ENCODINGS[encoding].note:
                    self._note(f"{topic} comes as {encoding}, {ENCODINGS[encoding].note}")
                yield RawFrame(stamp_ns, received_ns, frame_id, None, pixels, encoding)

    def odometry(self, topic: str = ODOMETRY.name) -> Iterator[OdometryRow | None]:
        """Poses of a topic of one of POSE_TYPES; None where a message cannot be read."""
        for received_ns, message in self.messages(topic):
            yield None if message is None else odometry_row(received_ns, message)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _raw(self, topics: Sequence[str]) -> Iterator[tuple[TopicType, int, bytes]]:
        """(channel, received_ns, serialised message) of some topics, file by file.

        Raises:
            MonoError: the indexes name messages of a topic, and not a single one is there.
        """
        read: Counter[str] = Counter()
        for file in self._files:
            here: Counter[TopicType] = Counter()
            try:
                for channel, received_ns, data in file.messages(topics):
                    here[channel] += 1
                    # A damaged record may claim a time beyond what int64 holds.
                    yield channel, min(received_ns, _LATEST_NS), message_bytes(data)
            except Exception as error:  # noqa: BLE001 - damage shows itself as many kinds (struct, zstd, lz4, sqlite3)
                why = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                file.breaks += [] if why in file.breaks else [why]
            for channel, count in file.counts.items():
                read[channel.topic] += here[channel]
                if channel.topic in topics and here[channel] < count and not file.breaks:
                    said = f"its index names {count} messages of {channel.topic}, of which {here[channel]} are there"
                    file.breaks.append(said)
        for topic in topics:
            if self.counts.get(topic) and not read[topic]:
                found = f"of {self.counts[topic]} messages of {topic} in {self.path} not one can be read"
                raise MonoError(f"{found}: {self.breaks_off}", "a bag of which something can be read", _LEAVE_OUT)

    def _decoded(self, raw: bytes, type_name: str) -> Message | None:
        store = typestore()
        try:
            # Our own definition first: the bag's embedded one may be damaged as well.
            if type_name not in store.fielddefs:
                store = self._types_of_bag()
            return store.deserialize_cdr(raw, type_name)
        except Exception:  # noqa: BLE001 - a damaged message may fail anywhere inside the decoder; the caller counts it
            return None

    def _types_of_bag(self) -> Typestore:
        """The types that the bag itself defines and that we do not know."""
        if self._own_types is None:
            from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

            self._own_types = get_typestore(Stores.ROS2_HUMBLE)
            for name, (language, text) in {k: v for file in self._files for k, v in file.definitions.items()}.items():
                try:
                    types = get_types_from_msg(text, name) if language == "ros2msg" else get_types_from_idl(text)
                    new = {key: value for key, value in types.items() if key not in self._own_types.fielddefs}
                    self._own_types.register(new)
                except Exception:  # noqa: BLE001, S112 - a text that is damaged; its messages will be counted
                    continue
        return self._own_types


@contextmanager
def open_bag(path: Path | str) -> Iterator[BagReader]:
    """Open a bag folder or a single .mcap or .db3 file, also one compressed as a whole.

    A recording that was never finished or breaks off is opened too, with ``breaks_off`` set.

    Raises:
        MonoError: absent, a bag of ROS 1, or nothing in it can be read.
    """
    place = Path(path)
    found = find_bag_files(place)
    with ExitStack() as stack:
        files = []
        for file in found.files:
            opened = _open_file(file, stack)
            if (twin := found.twins.get(file)) is not None and opened.breaks:
                opened = max(opened, _open_file(twin, stack), key=lambda each: each.counts.total())
            files.append(opened)
        order = order_of_time([file.path.name for file in files], [file.start_ns for file in files])
        bag = BagReader(place, [files[k] for k in order], found)
        if not any(bag.counts.values()) and (why := bag.breaks_off):
            what = f"{place} cannot be opened as a bag, and no message can be read from it: {why}"
            do = "check the path and that something was recorded"
            raise MonoError(what, "a bag folder with its files, or an .mcap or .db3 file", do)
        if place.is_dir() and not found.has_metadata and not bag.breaks_off:
            bag.notes.append(f"it has no metadata.yaml (for other programs: alpamayo-mono recover {place})")
        yield bag


def _open_file(path: Path, stack: ExitStack) -> McapMessages | SqliteMessages:
    """One file of a bag, decompressed to a temporary place where it is compressed; closed with the stack."""
    try:
        kind, held, why = kind_of(path), path, no_recording(path)
        if kind == "compressed":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="alpamayo-bag-"))
            held = Path(folder) / path.stem
            why = unpack_file(path, held)
            kind = kind_of(held)
        # Of a damaged head the name tells.
        is_sqlite = kind == "sqlite3" or (kind != "mcap" and held.suffix == ".db3" and not why)
        if is_sqlite and has_journal(held):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="alpamayo-bag-"))
            held, why = undone(held, Path(folder)), "a write that was never finished is undone, in a copy of the file"
        opened: McapMessages | SqliteMessages = SqliteMessages(held) if is_sqlite else McapMessages(held)
    except OSError as error:
        found = f"{path} cannot be read: {error.strerror or error}"
        raise MonoError(found, "a file of a bag, and room to decompress it", "check who may read it") from error
    stack.callback(opened.close)
    if why:
        opened.breaks[:] = [why, *opened.breaks] if opened.counts else [why]
    return opened


def header_stamp_ns(message: Message) -> int:
    """``header.stamp`` (or a bare ``stamp``) of a message in nanoseconds."""
    return stamp_ns_of(message.header.stamp if hasattr(message, "header") else message.stamp)


def odometry_row(received_ns: int, message: Message) -> OdometryRow:
    """The row of a message of one of POSE_TYPES; those without a twist have no speed (NaN)."""
    pose = message.pose if hasattr(message.pose, "position") else message.pose.pose
    x_m, y_m, yaw_rad = float(pose.position.x), float(pose.position.y), yaw_of(pose.orientation)
    speed_mps = float(message.twist.twist.linear.x) if hasattr(message, "twist") else float("nan")
    return OdometryRow(header_stamp_ns(message), received_ns, x_m, y_m, yaw_rad, speed_mps)
