"""The recorder's core, free of ROS: serialised messages and camera frames in, one mcap bag and a report out.

Callers (subscriber callbacks) only put things into bounded queues. One thread owns the bag; camera frames pass JPEG
workers first. A full queue drops the newest message and counts it: nothing a caller does can stall another topic.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from collector.bags.definitions import definition_of
from collector.bags.metadata import METADATA_FILE
from collector.bags.writer import DISK_FULL, FLUSH_S, BagWriter
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.recording.camera_frames import compressed_image_cdr, scaled_camera_info_cdr
from collector.recording.report import RecordingReport, TopicLog, make_report
from collector.ros.images import FrameError, PixelBytes, RawFrame, image_rows
from collector.ros.parameters import RecordParameters
from collector.ros.topics import CAMERA_INFO, CAMERA_JPEG, Topic

if TYPE_CHECKING:
    from typing_extensions import Self

# Serialised messages that may wait for the disk: twelve seconds of everything the interface sends.
_MESSAGE_QUEUE = 4096


class _Item(NamedTuple):
    """A message on its way to the disk; ``number`` orders frames, ``cdr`` is None for one that did not compress."""

    topic_name: str
    received_ns: int
    cdr: bytes | memoryview | None
    number: int | None = None


class BagRecorder:
    """Records topics into a new bag folder (frames as ``topics.CAMERA_JPEG``); thread safe.

    Frames are compressed by ``jpeg_workers`` threads, for OpenCV releases the interpreter while it works; beyond
    ``queue_frames`` that wait, they are dropped and counted. ``image_scale`` is the stored size over the camera's;
    CameraInfo is rewritten to fit, nothing else changes. Files are split as in
    :class:`collector.bags.writer.BagWriter`.

    Raises:
        MonoError: the folder exists, a message type is unknown, or a setting is out of range.
    """

    def __init__(
        self,
        folder: Path | str,
        topics: Sequence[Topic],
        jpeg_quality: int = RecordParameters.jpeg_quality,
        queue_frames: int = RecordParameters.queue_frames,
        jpeg_workers: int = RecordParameters.jpeg_workers,
        image_scale: float = 1.0,
        split_bytes: int = 0,
        split_ns: int = 0,
    ) -> None:
        if not 1 <= jpeg_quality <= 100:
            raise MonoError(f"a JPEG quality of {jpeg_quality}", "1 to 100", "90 is a good choice")
        if queue_frames < 1 or jpeg_workers < 1:
            found = f"{queue_frames} queued frames and {jpeg_workers} workers"
            raise MonoError(found, "at least one of each", "raise them")
        if not 0.0 < image_scale <= 1.0:
            raise MonoError(f"an image scale of {image_scale}", "above 0, at most 1", "1 stores frames as they come")
        self.folder = Path(folder)
        self._quality, self._scale, self._queue_frames = jpeg_quality, image_scale, queue_frames
        self._stamped = {topic.name: definition_of(topic.type).begins_with_stamp for topic in topics}
        self._logs = {topic.name: TopicLog(topic.name, topic.type, topic.rate_hz) for topic in topics}
        self._bag = BagWriter(self.folder, topics, split_bytes, split_ns)
        self._lock = threading.Lock()
        self._is_open = True
        self._error = self._frame_error = ""
        self._high_water = 0
        self._accepted_frames = 0
        self._messages: queue.Queue[_Item | None] = queue.Queue(_MESSAGE_QUEUE)
        self._frames: queue.Queue[tuple[int, RawFrame] | None] = queue.Queue(queue_frames)  # with their numbers
        self._report: RecordingReport | None = None
        self._writer = threading.Thread(target=self._write_bag, name="bag-writer", daemon=True)
        names = [f"jpeg-{number}" for number in range(jpeg_workers)]
        self._workers = [threading.Thread(target=self._compress, name=name, daemon=True) for name in names]
        for thread in (self._writer, *self._workers):
            thread.start()

    @property
    def error(self) -> str:
        """Why the bag can no longer be written (a full disk), empty while all is well."""
        return self._error

    @property
    def is_finished(self) -> bool:
        """Whether a closed bag can be read; False where even its index found no room."""
        return (self.folder / METADATA_FILE).exists()

    def write(
        self, topic_name: str, stamp_ns: int, cdr_bytes: bytes | memoryview, header_stamp_ns: int | None = None
    ) -> bool:
        """Record one serialised message, as rclpy's ``raw=True`` delivers it; never waits.

        ``stamp_ns`` is the time of arrival by a clock that does not go back and orders the bag; the header's stamp is
        read from the bytes when left out. Returns whether the message was taken; False when the queue was full or the
        recorder is closed.
        """
        log = self._log_of(topic_name)
        if header_stamp_ns is None and self._stamped[topic_name]:
            header_stamp_ns = stamp_in(cdr_bytes)
        with self._lock:
            if not self._is_open:
                return False
            log.add(stamp_ns, header_stamp_ns)
            try:
                self._messages.put_nowait(_Item(topic_name, stamp_ns, cdr_bytes))
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
        data: PixelBytes,
        *,
        received_ns: int | None = None,
        step: int = 0,
        is_bigendian: bool = False,
        frame_id: str = CAMERA_JPEG.frame_id,
    ) -> bool:
        """Record one camera frame as JPEG; never waits, and does not copy ``data`` (do not reuse that buffer).

        The fields are those of sensor_msgs/Image, ``stamp_ns`` its header's; step 0 means rows without padding. The
        time of arrival is the header's stamp when left out. Returns whether the frame was taken; False also for one
        that is none (:attr:`RecordingReport.frame_error` tells why).
        """
        log = self._log_of(CAMERA_JPEG.name)
        arrival_ns = stamp_ns if received_ns is None else received_ns
        with self._lock:
            if not self._is_open:
                return False
            log.add(arrival_ns, stamp_ns)
            try:
                pixels = image_rows(height, width, encoding, step, data, is_bigendian)
                frame = RawFrame(stamp_ns, arrival_ns, frame_id, pixels=pixels, encoding=encoding)
                self._frames.put_nowait((self._accepted_frames, frame))
            except FrameError as error:
                self._frame_error = self._frame_error or str(error)
                return False
            except queue.Full:
                log.dropped += 1
                return False
            self._accepted_frames += 1
            self._high_water = max(self._high_water, self._frames.qsize())
        return True

    def close(self) -> RecordingReport:
        """Compress and write what waits, finish the bag, write its report into it; safe to call again."""
        with self._lock:
            first, self._is_open = self._is_open, False
        if first:
            for _ in self._workers:
                self._frames.put(None)
            for worker in self._workers:
                worker.join()
            self._messages.put(None)
            self._writer.join()
            stored = self._bag.stored
            for log in self._logs.values():
                log.dropped = log.received - stored.get(log.name, 0)
            waited = self._high_water, self._queue_frames
            report = make_report(self.folder, list(self._logs.values()), *waited, self._error, self._frame_error)
            try:
                report.write(self.folder)
            except OSError as error:
                self._fail(error)
                report = replace(report, error=self._error)
            with self._lock:
                self._report = report
        while self._report is None:
            # Another thread is closing; the writer's end is the last thing that takes time.
            self._writer.join(0.1)
        return self._report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log_of(self, topic_name: str) -> TopicLog:
        try:
            return self._logs[topic_name]
        except KeyError:
            known = f"one of {', '.join(self._logs)}"
            raise MonoError(f"a message of {topic_name}", known, "name the topic when making the recorder") from None

    def _compress(self) -> None:
        while (job := self._frames.get()) is not None:
            number, frame = job
            cdr: memoryview | None = None
            try:
                cdr = compressed_image_cdr(frame, self._quality, self._scale)
            except Exception as error:  # noqa: BLE001 - a worker that ended would hold up every later frame
                self._frame_error = self._frame_error or str(error) or type(error).__name__
            self._messages.put(_Item(CAMERA_JPEG.name, frame.received_ns, cdr, number))

    def _write_bag(self) -> None:
        # Workers finish in any order; frames that are ahead of their turn wait here.
        early: dict[int, _Item] = {}
        turn = 0
        while True:
            try:
                item = self._messages.get(timeout=FLUSH_S / 2)
                if item is None:
                    break
                if item.number is None:
                    self._try(partial(self._store, item))
                else:
                    early[item.number] = item
                    while turn in early:
                        self._try(partial(self._store, early.pop(turn)))
                        turn += 1
            except queue.Empty:
                pass
            if not self._error:
                self._try(self._bag.keep_safe)
        self._try(self._bag.close)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the thread must not end: its queue still has to drain
            self._fail(error)

    def _store(self, item: _Item) -> None:
        # What is not stored is counted when the bag is closed, from what the bag holds then.
        if self._error or item.cdr is None:
            return
        cdr = item.cdr
        with suppress(FrameError):
            if item.topic_name == CAMERA_INFO.name and self._scale != 1.0:
                cdr = scaled_camera_info_cdr(cdr, self._scale)
            self._bag.write(item.topic_name, item.received_ns, cdr)
            with self._lock:
                self._logs[item.topic_name].bytes += len(cdr)

    def _fail(self, error: Exception) -> None:
        if self._error:
            return
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            self._error = f"the disk takes no more ({error.strerror})"
        else:
            self._error = f"{type(error).__name__}: {error}"


def stamp_in(cdr: bytes | memoryview) -> int | None:
    """The stamp at the beginning of a serialised message (4 bytes of encapsulation, then sec and nanosec)."""
    if len(cdr) < 12:
        return None
    order = "<" if bytes(cdr[1:2]) == b"\x01" else ">"
    seconds, nanoseconds = struct.unpack_from(order + "iI", cdr, 4)
    return int(seconds) * NS_PER_S + int(nanoseconds)
