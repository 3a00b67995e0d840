"""Bags that claim more than any recording holds end in a sentence, in bounded time and memory."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Header, McapRecord, Message, Schema, Statistics

from collector.bags import compression
from collector.bags.compression import LARGEST_BYTES, TooLargeError, decompressed, message_bytes, unpack_file
from collector.bags.mcap_format import MAGIC
from collector.bags.reader import open_bag
from collector.bags.recover import recover_bag
from collector.common.errors import MonoError
from collector.ros.topics import CAMERA_JPEG, ODOMETRY
from tests.helpers.damage import no_hang
from tests.helpers.paths import ROOT

TOPICS = {1: CAMERA_JPEG, 2: ODOMETRY}


def record(value: McapRecord) -> bytes:
    builder = RecordBuilder()
    value.write(builder)
    return bytes(builder.end())


DECLARED = b"".join(
    record(Schema(id=n, name=topic.type, encoding="ros2msg", data=b""))
    + record(Channel(id=n, topic=topic.name, message_encoding="cdr", metadata={}, schema_id=n))
    for n, topic in TOPICS.items()
)


def zeros_chunk(size: int, head: bytes = b"", said: int | None = None, compression: str = "zstd") -> bytes:
    """A chunk of zeros behind some records, made without having them all in memory."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    data = compressor.compress(head)
    block = bytes(2**20)
    for _ in range(size // len(block)):
        data += compressor.compress(block)
    data += compressor.flush()
    return record(Chunk(compression, data, 200, 100, 0, (len(head) + size) if said is None else said))


def indexed(chunk: bytes, times: int = 1, count: int = 10) -> bytes:
    """A finished file of a chunk that its index names several times."""
    data = MAGIC + record(Header("ros2", "x")) + DECLARED
    start = len(data)
    data += chunk + record(DataEnd(0))
    compression, size = "zstd", struct.unpack_from("<Q", chunk, 9 + 16)[0]
    index = record(ChunkIndex(
        chunk_length=len(chunk), chunk_start_offset=start, compression=compression, compressed_size=len(chunk) - 53,
        message_start_time=100, message_end_time=200, message_index_length=0, message_index_offsets={},
        uncompressed_size=size,
    ))  # fmt: skip
    statistics = record(Statistics(
        attachment_count=0, channel_count=2, channel_message_counts={1: count, 2: count}, chunk_count=times,
        message_count=2 * count, message_end_time=200, message_start_time=100, metadata_count=0, schema_count=2,
    ))  # fmt: skip
    summary = DECLARED + statistics + index * times
    return data + summary + record(Footer(len(data), 0, 0)) + MAGIC


def many_chunks() -> bytes:
    """Chunks one behind the other, each of a size that a chunk may have."""
    return MAGIC + record(Header("ros2", "x")) + DECLARED + zeros_chunk(200 * 2**20) * 20


def tiny_messages() -> bytes:
    """Millions of messages that are the same to the last bit."""
    one = record(Message(1, 100, b"", 100, 0))
    size = len(one) * 4_000_000
    data = zstandard.compress(one * 4_000_000, 1)
    return record(Chunk("zstd", data, 200, 100, 0, size))


FILES: dict[str, Callable[[], bytes]] = {
    "a chunk of 3 GB": lambda: indexed(zeros_chunk(3 * 2**30)),
    "a chunk of 3 GB that says 1 MB": lambda: indexed(zeros_chunk(3 * 2**30, said=2**20)),
    "a chunk of 3 GB, no index": lambda: MAGIC + record(Header("ros2", "x")) + DECLARED + zeros_chunk(3 * 2**30),
    "the same chunk 20 times": lambda: indexed(zeros_chunk(240 * 2**20), times=20),
    "20 chunks of 200 MB": many_chunks,
    "millions of messages": lambda: indexed(tiny_messages(), count=4_000_000),
    "millions of messages, no index": lambda: MAGIC + record(Header("ros2", "x")) + DECLARED + tiny_messages(),
    "a record of 2^62 bytes": lambda: MAGIC + record(Header("ros2", "x")) + DECLARED + b"\x05" + b"\xff" * 7 + b"\x3f",
}


@pytest.fixture(scope="module", params=FILES)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "bag_0.mcap"
    path.write_bytes(FILES[request.param]())
    assert path.stat().st_size < 2_000_000
    return path


_MEASURED = """
import resource, sys
from collector.common.errors import MonoError
from collector.bags.reader import open_bag
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for topic in sys.argv[2:]:
    try:
        with open_bag(sys.argv[1]) as bag:
            for _ in bag.messages(topic):
                pass
            print(bag.breaks_off or "read")
    except MonoError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""


def test_a_small_file_does_not_become_gigabytes(hostile: Path) -> None:
    command = [sys.executable, "-c", _MEASURED, str(hostile), CAMERA_JPEG.name, ODOMETRY.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    grown_mb = int(done.stderr.split()[-1]) / 1024
    assert grown_mb < 900, done.stdout
    assert "read" not in done.stdout.splitlines() and "Traceback" not in done.stderr


def test_recover_leaves_it_or_mends_it(hostile: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bag_0.mcap"
    copy.write_bytes(hostile.read_bytes())
    tracemalloc.start()
    try:
        with no_hang():
            recover_bag(copy)
        assert tracemalloc.get_traced_memory()[1] < 900e6
    finally:
        tracemalloc.stop()
    assert copy.stat().st_size < 3_000_000


def test_compressed_pieces_stop_at_the_limit() -> None:
    data = zstandard.compress(bytes(LARGEST_BYTES + 2**20))
    for piece in (lambda: decompressed("zstd", data), lambda: message_bytes(data)):
        with pytest.raises(TooLargeError):
            piece()
    # Several frames one behind the other are one piece.
    assert len(decompressed("zstd", zstandard.compress(bytes(1000)) * 3)) == 3000
    with pytest.raises(TooLargeError):
        decompressed("zstd", zstandard.compress(bytes(2**24)) * 20)


def test_a_compressed_file_beyond_all_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_FREE_BYTES", 2**24)
    path = tmp_path / "bag_0.mcap.zstd"
    path.write_bytes(zstandard.compress(bytes(2**26)))
    with pytest.raises(MonoError, match="grow beyond"), open_bag(path):
        pass
    # Long, but in proportion: a raw recording of a scene that stands still.
    path.write_bytes(zstandard.compress(np.random.default_rng(0).bytes(100_000) * 300))
    assert unpack_file(path, tmp_path / "out") == "" and (tmp_path / "out").stat().st_size == 30_000_000


def test_a_database_that_never_ends_or_holds_giants(tmp_path: Path) -> None:
    endless, giant = tmp_path / "endless.db3", tmp_path / "giant.db3"
    topics = "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)"
    for path in (endless, giant):
        database = sqlite3.connect(path)
        database.execute(topics)
        database.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr')", (CAMERA_JPEG.name, CAMERA_JPEG.type))
        if path is endless:
            database.execute(
                "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"
            )
        else:
            database.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
            database.execute(f"INSERT INTO messages VALUES (1, 1, 5, zeroblob({LARGEST_BYTES + 1}))")
            database.execute("INSERT INTO messages VALUES (2, 1, 6, x'0001')")
        database.commit()
        database.close()
    with no_hang(), pytest.raises(MonoError, match="no tables of topics and messages"), open_bag(endless):
        pass
    with open_bag(giant) as bag:
        assert len(list(bag.messages(CAMERA_JPEG.name))) == 1 and f"at most {LARGEST_BYTES}" in bag.breaks_off
