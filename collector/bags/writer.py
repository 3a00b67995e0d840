"""Bags written without ROS: mcap that ROS 2 Humble plays, in files of bounded size, safe against a sudden end.

What was written reaches the kernel at least every ``FLUSH_S`` (a killed process loses no more) and the disk every
``SYNC_S`` (nor does a power cut); :mod:`collector.bags.recover` then finishes the bag. On a full disk the bag is
finished at once, in the room kept for its index.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import yaml

from collector.bags.definitions import definition_of
from collector.bags.mcap_format import Channel, Schema
from collector.bags.mcap_records import QOS_KEY, TYPE_HASH_KEY
from collector.bags.mcap_writer import McapWriter
from collector.bags.metadata import RESERVE_FILE, StoredFile, StoredTopic, write_metadata
from collector.bags.repair import repair_mcap
from collector.common.errors import MonoError
from collector.common.files import real_place
from collector.common.output_folder import lock_folder
from collector.ros.topics import Topic

FLUSH_S = 0.4
SYNC_S = 1.0
# The index of an hour, or of a 4 GB file, takes about 2 MB.
RESERVE_BYTES = 4 * 2**20
# More would only make a killed recording lose more; less would make the index longer.
_CHUNK_BYTES = 2**20
_FOREVER = {"sec": 9223372036, "nsec": 854775807}
_RECORD_BYTES = 31  # around each message
# No space left, a quota reached, a file as large as the file system takes.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def qos_text(topic: Topic) -> str:
    """The QoS of a topic as a bag holds it (YAML in the numbers of Humble), so that playback offers what was sent."""
    profile = {
        "history": 1,  # keep the last
        "depth": topic.depth,
        "reliability": {"reliable": 1, "best_effort": 2}[topic.reliability],
        "durability": {"transient_local": 1, "volatile": 2}[topic.durability],
        "deadline": dict(_FOREVER),
        "lifespan": dict(_FOREVER),
        "liveliness": 1,  # automatic
        "liveliness_lease_duration": dict(_FOREVER),
        "avoid_ros_namespace_conventions": False,
    }
    return str(yaml.safe_dump([profile], default_flow_style=None)).rstrip()


class BagWriter:
    """Writes a new mcap bag (metadata version 8), definitions embedded in each of its files.

    Not thread safe: one thread owns it. When a method raises OSError the disk took no more: call :meth:`close`, which
    finishes the bag with what was written; ``reserve_bytes`` are kept on the disk for its index. A new file begins
    after ``split_bytes``, or ``split_ns`` of arrival; 0 never does.

    Raises:
        MonoError: the folder exists, cannot be made, or a type is unknown.
    """

    def __init__(
        self,
        folder: Path | str,
        topics: Sequence[Topic],
        split_bytes: int = 0,
        split_ns: int = 0,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.folder = Path(folder)
        definitions = {topic.type: definition_of(topic.type) for topic in topics}
        if real_place(self.folder).exists():
            if self.folder.is_dir():
                os.close(lock_folder(self.folder))  # says who is writing it, if somebody is
            raise MonoError(f"{self.folder} exists", "a bag folder to create", "choose another name")
        hashes = {name: each.type_hash for name, each in definitions.items()}
        self._topics = tuple(StoredTopic(t.name, t.type, "cdr", qos_text(t), hashes[t.type]) for t in topics)
        self._schemas = [
            Schema(number, name, "ros2msg", each.text.encode())
            for number, (name, each) in enumerate(definitions.items(), start=1)
        ]
        ids = {schema.name: schema.id for schema in self._schemas}
        self._channels = [
            Channel(number, ids[t.type], t.name, t.encoding, {QOS_KEY: t.qos, TYPE_HASH_KEY: t.type_hash})
            for number, t in enumerate(self._topics, start=1)
        ]
        self._numbers = {each.topic: each.id for each in self._channels}
        self._split_bytes, self._split_ns = split_bytes, split_ns
        self._files: list[StoredFile] = []
        self._is_broken = self._is_closed = False
        self._path: Path
        self._stream: BinaryIO
        self._writer: McapWriter
        self._counts: Counter[str]
        self._bytes = self._start_ns = self._end_ns = 0
        self._flushed_s = self._synced_s = 0.0
        # One thread, so that a file is closed after the syncs before.
        self._sync_thread = ThreadPoolExecutor(1, thread_name_prefix="bag-sync")
        self._syncs: deque[Future[None]] = deque()
        is_ours = False
        try:
            real_place(self.folder).mkdir(parents=True)
            self._lock = lock_folder(self.folder)
            is_ours = True
            _reserve(self.folder / RESERVE_FILE, reserve_bytes)
            self._open_file()
        except OSError as error:
            if is_ours:
                os.close(self._lock)
                shutil.rmtree(self.folder, ignore_errors=True)
            found = f"the bag {self.folder} cannot be begun: {error.strerror or error}"
            do = "make room, or name another place"
            raise MonoError(found, "a folder of yours on a disk with free space", do) from error

    @property
    def stored(self) -> dict[str, int]:
        """Messages per topic in the finished files; complete after :meth:`close`."""
        return dict(sum((Counter(file.counts) for file in self._files), Counter[str]()))

    def write(self, topic_name: str, received_ns: int, cdr: bytes | memoryview) -> None:
        """Append one serialised message (OSError: the disk takes no more)."""
        is_large = 0 < self._split_bytes <= self._bytes
        is_long = 0 < self._split_ns <= received_ns - self._start_ns
        if self._counts and (is_large or is_long):
            self._finish_file()
            self._open_file()
        with self._noting_failure():
            self._writer.add_message(self._numbers[topic_name], received_ns, cdr)
        self._bytes += len(cdr) + _RECORD_BYTES
        if not self._counts:
            self._start_ns = self._end_ns = received_ns
        self._start_ns, self._end_ns = min(self._start_ns, received_ns), max(self._end_ns, received_ns)
        self._counts[topic_name] += 1

    def keep_safe(self) -> None:
        """Hand what waits to the kernel and to the disk when it is time to; call it often, also when nothing comes.

        Raises:
            OSError: the disk takes no more.
        """
        now_s = time.monotonic()
        if now_s < self._flushed_s + FLUSH_S:
            return
        with self._noting_failure():
            self._writer.flush()
            self._look_at_syncs()
            if not self._syncs and now_s >= self._synced_s + SYNC_S:
                self._sync_later(self._stream)
                self._synced_s = now_s
        self._flushed_s = now_s

    def close(self) -> None:
        """Write index and metadata; the bag is complete only after this.

        Raises:
            OSError: the end could not be stored. The bag is finished without it, unless ``metadata.yaml`` is missing:
                then :func:`collector.bags.recover.recover_bag` finishes it once there is room.
        """
        if self._is_closed:
            return
        self._is_closed = True
        failure: OSError | None = None
        if not self._is_broken:
            try:
                self._finish_file(is_last=True)
            except OSError as error:
                failure = error
        self._sync_thread.shutdown()
        (self.folder / RESERVE_FILE).unlink(missing_ok=True)
        if self._is_broken:
            with suppress(OSError):  # its buffer finds no room either
                self._stream.close()
            if self._path.exists():
                self._files.append(repair_mcap(self._path, keep_aside=False).file)
        try:
            write_metadata(self.folder, self._files, self._topics)
        finally:
            os.close(self._lock)
        if failure is not None:
            raise failure

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """After an OSError the file is to be mended when the bag is closed."""
        try:
            yield
        except OSError:
            self._is_broken = True
            raise

    def _open_file(self) -> None:
        self._path = self.folder / f"{self.folder.name}_{len(self._files)}.mcap"
        self._counts = Counter()
        self._bytes = self._start_ns = self._end_ns = 0
        self._flushed_s = self._synced_s = time.monotonic()
        with self._noting_failure():
            self._stream = create_file(self._path)
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(self._stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Frames are JPEG already: compression would cost time and save nothing.
            self._writer = McapWriter(self._stream, self._schemas, self._channels, _CHUNK_BYTES)
            self._writer.flush()
            _sync_folder(self.folder)

    def _finish_file(self, is_last: bool = False) -> None:
        with self._noting_failure():
            self._writer.finish()
            self._sync_later(self._stream, and_close=True)
            self._look_at_syncs(wait=is_last)
        self._files.append(StoredFile(self._path.name, dict(self._counts), self._start_ns, self._end_ns))

    def _sync_later(self, stream: BinaryIO, and_close: bool = False) -> None:
        """Have a file reach the disk, in a thread: a slow disk must not keep what comes next out of the kernel."""

        def sync() -> None:
            with stream if and_close else nullcontext():
                os.fdatasync(stream.fileno())

        self._syncs.append(self._sync_thread.submit(sync))

    def _look_at_syncs(self, wait: bool = False) -> None:
        """Forget the syncs that are done, or all once they are (OSError: one failed)."""
        while self._syncs and (wait or self._syncs[0].done()):
            self._syncs.popleft().result()


def create_file(path: Path) -> BinaryIO:
    """A new file to write a part of a bag to."""
    return path.open("xb")


def _reserve(path: Path, size: int) -> None:
    if not size:
        return
    with path.open("xb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise  # others: a file system that cannot reserve


def _sync_folder(folder: Path) -> None:
    """Make a new file's name outlive a power cut, not only its content."""
    for place in (folder, folder.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            pass  # some file systems refuse folders
        finally:
            os.close(descriptor)
