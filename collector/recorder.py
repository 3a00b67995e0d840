"""The recorder's core, free of ROS: serialised messages and camera frames in, one mcap bag and a receipt out.

Callers (subscriber callbacks) only put things into bounded queues. One thread owns the bag; camera frames pass JPEG
workers first. A full queue drops the newest message and counts it: nothing a caller does can stall another topic.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collector.bags import ENCODINGS, BagWriter, FrameError, as_bgr, encode_jpeg, typestore
from collector.errors import MonoError
from collector.receipt import Receipt, TopicLog, make_receipt
from collector.stack import CAMERA_JPEG, Topic

Buffer = Any  # bytes, array.array, memoryview or ndarray: whatever np.frombuffer reads without a copy
# Serialised messages that may wait for the disk.
_MESSAGE_QUEUE = 4096


@dataclass(frozen=True)
class _Frame:
    header_stamp_ns: int
    received_ns: int
    height: int
    width: int
    encoding: str
    data: Buffer
    step: int
    frame_id: str


class BagRecorder:
    """Records topics into a new bag folder; thread safe.

    Args:
        folder: the bag to create.
        topics: what will be recorded, as it lies in the bag (frames as ``stack.CAMERA_JPEG``).
        jpeg_quality: 1 to 100.
        queue_frames: raw frames that may wait for compression; more are dropped and counted.
        jpeg_workers: compression threads (OpenCV releases the interpreter while it works).

    Raises:
        MonoError: the folder exists, a message type is unknown, or a setting is out of range.
    """

    def __init__(
        self,
        folder: Path | str,
        topics: Sequence[Topic],
        jpeg_quality: int = 90,
        queue_frames: int = 64,
        jpeg_workers: int = 2,
    ) -> None:
        if not 1 <= jpeg_quality <= 100:
            raise MonoError(f"a JPEG quality of {jpeg_quality}", "1 to 100", "90 is a good choice")
        if queue_frames < 1 or jpeg_workers < 1:
            raise MonoError(
                f"{queue_frames} queued frames and {jpeg_workers} workers",
                "at least one of each",
                "raise them",
            )
        self.folder = Path(folder)
        self._quality = jpeg_quality
        self._stamped = {topic.name: _begins_with_stamp(topic.type) for topic in topics}
        self._logs = {topic.name: TopicLog(topic.name, topic.type, topic.rate_hz) for topic in topics}
        self._bag = BagWriter(self.folder, topics)
        self._lock = threading.Lock()
        self._is_open = True
        self._error = ""
        self._high_water = 0
        self._messages: queue.Queue[tuple[str, int, bytes | memoryview] | None] = queue.Queue(_MESSAGE_QUEUE)
        self._frames: queue.Queue[_Frame | None] = queue.Queue(queue_frames)
        self._receipt: Receipt | None = None
        self._writer = threading.Thread(target=self._write_bag, name="bag-writer", daemon=True)
        self._workers = [
            threading.Thread(target=self._compress, name=f"jpeg-{number}", daemon=True)
            for number in range(jpeg_workers)
        ]
        for thread in (self._writer, *self._workers):
            thread.start()

    @property
    def error(self) -> str:
        """Why the bag can no longer be written (a full disk), empty while all is well."""
        return self._error

    def write(
        self,
        topic_name: str,
        stamp_ns: int,
        cdr_bytes: bytes | memoryview,
        header_stamp_ns: int | None = None,
    ) -> bool:
        """Record one serialised message; never waits.

        Args:
            topic_name: one of the recorder's topics.
            stamp_ns: time of arrival by a clock that does not go back; orders the bag.
            cdr_bytes: the message as rclpy's ``raw=True`` delivers it.
            header_stamp_ns: the header's stamp; read from the bytes when left out.

        Returns:
            Whether it was taken; False when the queue was full or the recorder is closed.
        """
        log = self._log_of(topic_name)
        if header_stamp_ns is None and self._stamped[topic_name]:
            header_stamp_ns = _stamp_in(cdr_bytes)
        with self._lock:
            if not self._is_open:
                return False
            log.add(stamp_ns, header_stamp_ns)
            try:
                self._messages.put_nowait((topic_name, stamp_ns, cdr_bytes))
            except queue.Full:
                log.dropped += 1
                return False
        return True

    def write_image(
        self,
        stamp_ns: int,
        height: int,
        width: int,
        encoding: str,
        data: Buffer,
        *,
        received_ns: int | None = None,
        step: int = 0,
        frame_id: str = CAMERA_JPEG.frame_id,
    ) -> bool:
        """Record one camera frame as JPEG; never waits, and does not copy ``data`` (do not reuse that buffer).

        Args:
            stamp_ns: the image's header stamp.
            height, width, encoding, step, frame_id: as in sensor_msgs/Image; step 0 means rows without padding.
            data: the pixels.
            received_ns: time of arrival, the header stamp when left out.

        Returns:
            Whether it was taken.
        """
        log = self._log_of(CAMERA_JPEG.name)
        arrival_ns = stamp_ns if received_ns is None else received_ns
        with self._lock:
            if not self._is_open:
                return False
            log.add(arrival_ns, stamp_ns)
            try:
                self._frames.put_nowait(
                    _Frame(stamp_ns, arrival_ns, height, width, encoding, data, step, frame_id)
                )
            except queue.Full:
                log.dropped += 1
                return False
            self._high_water = max(self._high_water, self._frames.qsize())
        return True

    def close(self) -> Receipt:
        """Compress and write what waits, finish the bag, write ``receipt.json`` into it; safe to call again."""
        with self._lock:
            first, self._is_open = self._is_open, False
        if first:
            for _ in self._workers:
                self._frames.put(None)
            for worker in self._workers:
                worker.join()
            self._messages.put(None)
            self._writer.join()
            receipt = make_receipt(self.folder, list(self._logs.values()), self._high_water, self._error)
            try:
                receipt.write(self.folder)
            except OSError as error:
                self._fail(error)
            with self._lock:
                self._receipt = receipt
        while self._receipt is None:
            # Another thread is closing; the writer's end is the last thing that takes time.
            self._writer.join(0.1)
        return self._receipt

    def __enter__(self) -> BagRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log_of(self, topic_name: str) -> TopicLog:
        try:
            return self._logs[topic_name]
        except KeyError:
            raise MonoError(
                f"a message of {topic_name}",
                f"one of {', '.join(self._logs)}",
                "name the topic when making the recorder",
            ) from None

    def _compress(self) -> None:
        log = self._logs.get(CAMERA_JPEG.name)
        while (frame := self._frames.get()) is not None:
            assert log is not None
            try:
                cdr = compressed_image_cdr(frame_to_jpeg(frame, self._quality), frame)
            except MonoError:
                with self._lock:
                    log.dropped += 1
                continue
            self._messages.put((CAMERA_JPEG.name, frame.received_ns, cdr))

    def _write_bag(self) -> None:
        while (item := self._messages.get()) is not None:
            name, received_ns, cdr = item
            try:
                if self._error:
                    raise OSError(self._error)
                self._bag.write(name, received_ns, cdr)
            except Exception as error:
                # A full disk must not end the thread: the queue still has to drain, and every loss be counted.
                self._fail(error)
                with self._lock:
                    self._logs[name].dropped += 1
                continue
            with self._lock:
                self._logs[name].bytes += len(cdr)
        try:
            self._bag.close()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._error:
            self._error = f"{type(error).__name__}: {error}"


def frame_to_jpeg(frame: _Frame, quality: int) -> bytes:
    """Compress a camera frame.

    Raises:
        FrameError: unknown encoding, or fewer bytes than its size says.
    """
    if frame.encoding not in ENCODINGS:
        raise FrameError(
            f"a frame encoded as {frame.encoding!r}", ", ".join(ENCODINGS), "publish one of these"
        )
    channels = ENCODINGS[frame.encoding][0]
    step = frame.step or frame.width * channels
    pixels = np.frombuffer(frame.data, np.uint8)
    if (
        frame.height < 1
        or frame.width < 1
        or step < frame.width * channels
        or pixels.size < frame.height * step
    ):
        raise FrameError(
            f"a frame of {pixels.size} bytes",
            f"{frame.height} rows of {step} bytes",
            "check height, width and step",
        )
    rows = pixels[: frame.height * step].reshape(frame.height, step)[:, : frame.width * channels]
    return encode_jpeg(as_bgr(rows.reshape(frame.height, frame.width, channels), frame.encoding), quality)


def compressed_image_cdr(jpeg: bytes, frame: _Frame) -> memoryview:
    """A serialised sensor_msgs/CompressedImage with the frame's header."""
    store = typestore()
    message = store.types["sensor_msgs/msg/CompressedImage"]
    header, time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    seconds, nanoseconds = divmod(frame.header_stamp_ns, 1_000_000_000)
    # The text by which image_transport tells what the pixels were before compression.
    stored_as = "mono8" if frame.encoding == "mono8" else "bgr8"
    return store.serialize_cdr(
        message(
            header=header(stamp=time(sec=seconds, nanosec=nanoseconds), frame_id=frame.frame_id),
            format=f"{frame.encoding}; jpeg compressed {stored_as}",
            data=np.frombuffer(jpeg, np.uint8),
        ),
        "sensor_msgs/msg/CompressedImage",
    )


def _begins_with_stamp(type_name: str) -> bool:
    """Whether a message's first bytes are its stamp: it begins with a Header or with a Time."""
    store = typestore()
    if type_name not in store.fielddefs:
        return False
    fields = store.fielddefs[type_name][1]
    return bool(fields) and fields[0][1][1] in ("std_msgs/msg/Header", "builtin_interfaces/msg/Time")


def _stamp_in(cdr: bytes | memoryview) -> int | None:
    """The stamp at the beginning of a serialised message (4 bytes of encapsulation, then sec and nanosec)."""
    if len(cdr) < 12:
        return None
    order = "<" if bytes(cdr[1:2]) == b"\x01" else ">"
    seconds, nanoseconds = struct.unpack_from(order + "iI", cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
