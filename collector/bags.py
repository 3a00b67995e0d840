"""Bags read without ROS, by rosbags: sqlite3 and mcap (written by :mod:`collector.bag_writer`).

Everything is keyed by header stamps; a message's time of arrival is passed along only for messages that carry none.
Reading streams: one message is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collector.bag_metadata import METADATA_FILE
from collector.errors import MonoError
from collector.stack import CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys.store import Typestore

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
# Channels per pixel, and whether the colours come as RGB (OpenCV wants BGR).
ENCODINGS = {
    "bgr8": (3, False),
    "rgb8": (3, True),
    "bgra8": (4, False),
    "rgba8": (4, True),
    "mono8": (1, False),
}

_LATEST_NS = 2**63 - 1


class FrameError(MonoError):
    """A camera frame cannot be decoded; ``build`` counts it and goes on."""


@dataclass(frozen=True)
class RawFrame:
    """A camera message as recorded.

    Attributes:
        stamp_ns: header stamp.
        received_ns: time of arrival by the recorder's clock.
        frame_id: header frame.
        jpeg: the compressed bytes of a CompressedImage (JPEG or another format OpenCV reads), else None.
        pixels: (H, W, C) uint8 of a raw Image as sent, else None.
        encoding: of ``pixels``.
    """

    stamp_ns: int
    received_ns: int
    frame_id: str
    jpeg: bytes | None = None
    pixels: NDArray[np.uint8] | None = None
    encoding: str = ""


@dataclass(frozen=True)
class OdometryRow:
    """One odometry message: pose in the map, forward speed in the kart's frame."""

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
    for package in sorted(
        resources.files("collector").joinpath("msg").iterdir(), key=lambda entry: entry.name
    ):
        if not package.joinpath("msg").is_dir():
            continue
        for text in sorted(package.joinpath("msg").iterdir(), key=lambda entry: entry.name):
            name = f"{package.name}/msg/{text.name.removesuffix('.msg')}"
            if text.name.endswith(".msg") and name not in store.fielddefs:
                added.update(get_types_from_msg(text.read_text("utf-8"), name))
    store.register({name: fields for name, fields in added.items() if name not in store.fielddefs})
    return store


class BagReader:
    """A bag opened for reading; made by :func:`open_bag`."""

    def __init__(self, path: Path, reader: AnyReader) -> None:
        self.path, self._reader = path, reader
        self.topics: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}
        self.counts: dict[str, int] = {}
        for connection in reader.connections:
            self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount

    def require_topic(self, name: str, purpose: str, cure: str) -> None:
        """Raise a MonoError that names the missing topic and what the bag has instead."""
        if self.counts.get(name, 0) == 0:
            held = ", ".join(sorted(topic for topic, count in self.counts.items() if count)) or "nothing"
            raise MonoError(
                f"the bag {self.path} holds no messages of {name} ({purpose}); it holds {held}", name, cure
            )

    def image_topic(self, wanted: str | None = None) -> str:
        """The camera topic: the one wanted, else our JPEG topic, else the raw one.

        Raises:
            MonoError: none there, or not an image type.
        """
        candidates = [wanted] if wanted else [CAMERA_JPEG.name, CAMERA_IMAGE.name]
        for name in candidates:
            if self.counts.get(name, 0):
                if self.topics[name] not in IMAGE_TYPES:
                    raise MonoError(
                        f"{name} in {self.path} has the type {self.topics[name]}",
                        " or ".join(IMAGE_TYPES),
                        "choose another --image-topic",
                    )
                return name
        self.require_topic(
            " or ".join(candidates),
            "the camera",
            "record with the camera on (AWSIM: --camera gpu), or name your topic with --image-topic",
        )
        raise AssertionError("unreachable")

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """(received_ns, message) of one topic in order of arrival; undecodable messages come as None."""
        for _, received_ns, raw in self._raw([topic]):
            yield received_ns, self._decoded(raw, self.topics[topic])

    def frames(self, topic: str) -> Iterator[RawFrame | None]:
        """The camera's messages in order of arrival; None where a message cannot be read at all."""
        for received_ns, message in self.messages(topic):
            if message is None:
                yield None
                continue
            stamp_ns, frame_id = header_stamp_ns(message), message.header.frame_id
            if hasattr(message, "encoding"):
                pixels = _pixels(message)
                if pixels is None:
                    yield None
                else:
                    yield RawFrame(stamp_ns, received_ns, frame_id, None, pixels, message.encoding)
            else:
                yield RawFrame(stamp_ns, received_ns, frame_id, bytes(message.data))

    def odometry(self, topic: str = ODOMETRY.name) -> Iterator[OdometryRow | None]:
        """Poses of a nav_msgs/Odometry topic; None where a message cannot be read."""
        for received_ns, message in self.messages(topic):
            if message is None:
                yield None
                continue
            pose, twist = message.pose.pose, message.twist.twist
            q = pose.orientation
            # Yaw of a quaternion (REP-103 axes); an all-zero one has no direction and becomes NaN.
            norm = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
            yaw_rad = (
                float(
                    np.arctan2(2.0 * (q.w * q.z + q.x * q.y), q.w * q.w + q.x * q.x - q.y * q.y - q.z * q.z)
                )
                if norm > 1e-12
                else float("nan")
            )
            yield OdometryRow(
                header_stamp_ns(message),
                received_ns,
                float(pose.position.x),
                float(pose.position.y),
                yaw_rad,
                float(twist.linear.x),
            )

    def _raw(self, topics: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                # A damaged record may claim a time beyond what int64 holds.
                yield connection.topic, min(received_ns, _LATEST_NS), raw
        except MonoError:
            raise
        except Exception as error:
            # rosbags raises many kinds on a torn file (struct, zstd, its own): all mean the same to the user.
            raise MonoError(
                f"the bag {self.path} breaks off: {type(error).__name__}: {error}",
                "a readable bag",
                "record it again, or finish it with alpamayo-mono recover",
            ) from error

    def _decoded(self, raw: bytes, type_name: str) -> Any:
        try:
            return self._reader.deserialize(raw, type_name)
        except Exception:
            # A mutated message may fail anywhere inside the decoder; the caller counts it.
            return None


@contextmanager
def open_bag(path: Path | str) -> Iterator[BagReader]:
    """Open a bag folder (metadata.yaml and files) or a single .mcap / .db3 file.

    Raises:
        MonoError: absent, unfinished or unreadable.
    """
    from rosbags.highlevel import AnyReader

    place = Path(path)
    if not place.exists():
        raise MonoError(f"no bag at {place}", "a bag folder or an .mcap or .db3 file", "check the path")
    if place.is_dir() and not (place / METADATA_FILE).exists() and any(place.glob("*.mcap")):
        raise MonoError(
            f"{place} was never finished: its recording was killed", f"a bag folder with {METADATA_FILE}",
            f"alpamayo-mono recover {place}",
        )
    try:
        reader = AnyReader([place], default_typestore=typestore())
        reader.open()
    except Exception as error:
        raise MonoError(
            f"{place} cannot be opened as a bag: {error}",
            "a bag folder with metadata.yaml, or an .mcap or .db3 file",
            f"alpamayo-mono recover {place} finishes an mcap bag whose recording was killed",
        ) from error
    try:
        yield BagReader(place, reader)
    finally:
        reader.close()


def header_stamp_ns(message: Any) -> int:
    """``header.stamp`` (or a bare ``stamp``) of a message in nanoseconds."""
    stamp = message.header.stamp if hasattr(message, "header") else message.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def as_bgr(pixels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """A raw image as OpenCV's (H, W, 3) BGR, or (H, W) for mono8.

    Raises:
        FrameError: an encoding we do not know.
    """
    if encoding not in ENCODINGS:
        raise FrameError(f"an image encoded as {encoding!r}", ", ".join(ENCODINGS), "record one of these")
    channels, is_rgb = ENCODINGS[encoding]
    if channels == 1:
        return np.ascontiguousarray(pixels[:, :, 0])
    import cv2

    code = {(3, True): cv2.COLOR_RGB2BGR, (4, False): cv2.COLOR_BGRA2BGR, (4, True): cv2.COLOR_RGBA2BGR}.get(
        (channels, is_rgb)
    )
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def encode_jpeg(bgr: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of an OpenCV image.

    Raises:
        FrameError: OpenCV refuses it (an empty image).
    """
    import cv2

    try:
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    except cv2.error as error:
        raise FrameError(f"an image of shape {bgr.shape} that OpenCV cannot compress: {error}") from error
    if not done:
        raise FrameError(f"an image of shape {bgr.shape} that OpenCV cannot compress")
    return bytes(data.data)


def frame_jpeg(frame: RawFrame, quality: int = 95) -> bytes:
    """A frame as JPEG: the bag's own bytes where it holds JPEG, else compressed once.

    Raises:
        FrameError: the frame cannot be decoded.
    """
    import cv2

    if frame.pixels is not None:
        return encode_jpeg(as_bgr(frame.pixels, frame.encoding), quality)
    data = frame.jpeg or b""
    is_jpeg = data[:3] == b"\xff\xd8\xff"
    if is_jpeg and data.rstrip(b"\x00")[-2:] != b"\xff\xd9":
        raise FrameError(f"a JPEG frame of {len(data)} bytes that breaks off", "an end-of-image marker")
    try:
        # An eighth of the size suffices to prove that it decodes, at a fraction of the cost.
        mode = cv2.IMREAD_REDUCED_GRAYSCALE_8 if is_jpeg else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise FrameError(f"a frame of {len(data)} bytes that cannot be decoded", "JPEG or PNG")
    return data if is_jpeg else encode_jpeg(np.asarray(image, np.uint8), quality)


def _pixels(message: Any) -> NDArray[np.uint8] | None:
    """(H, W, C) view of a raw Image without its row padding, None where size and data disagree."""
    if message.encoding not in ENCODINGS:
        return None
    channels, height, width, step = (
        ENCODINGS[message.encoding][0],
        message.height,
        message.width,
        message.step,
    )
    data = np.asarray(message.data, np.uint8)
    if height == 0 or width == 0 or step < width * channels or data.size < height * step:
        return None
    return data[: height * step].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
