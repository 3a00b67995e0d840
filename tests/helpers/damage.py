"""Inputs damaged at random, by seed: messages, JSON lines and bag files, and what becomes of them."""

from __future__ import annotations

import json
import random
import re
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import zstandard
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer

from collector.bags.reader import open_bag, typestore
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset, load_texts
from collector.dataset.config import BuildConfig
from collector.dataset.schema import MANIFEST_FILE, SCHEMA_VERSION, read_samples
from collector.ros.images import ENCODINGS
from collector.ros.topics import AWSIM_STATUS, CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS
from tests.helpers.building import build
from tests.helpers.synthetic_bag import (
    camera_stamps,
    compressed_cdr,
    drive_course,
    image_cdr,
    jpeg,
    odometry_cdr,
    picture,
    status_cdr,
    velocity_cdr,
    write_bag,
)

# A whole build takes a fraction of a second; a loop without an end would take longer than this.
_LONGEST_S = 10
EXTREMES = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\xf0\x7f", b"\xff" * 8)


def damaged(data: bytes, draw: random.Random) -> bytes:  # noqa: PLR0911 - one return per kind of damage
    """The bytes with one kind of damage: flipped bits, extreme numbers, or a part lost, doubled or made up."""
    kind = draw.randrange(7)
    at = draw.randrange(len(data) + 1)
    length = min(4 ** draw.randrange(6), len(data))
    if kind == 0:
        changed = bytearray(data)
        for _ in range(4 ** draw.randrange(4)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == 1:
        # Where lengths, sizes and stamps stand: at whole words, most of them near the beginning.
        at = min(draw.choice((at, draw.randrange(64))), len(data)) // 4 * 4
        extreme = draw.choice(EXTREMES)
        return data[:at] + extreme + data[at + len(extreme) :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        return data[:at] + data[at : at + length] + data[at:]
    if kind == 5:
        return data[:at] + draw.randbytes(length) + data[at + length :]
    return draw.randbytes(draw.choice((0, 1, len(data))))


@contextmanager
def no_hang() -> Iterator[None]:
    """Ends a loop without an end by an error; processor time counts, so a busy machine does not ring it."""

    def ring(*_: object) -> None:
        raise AssertionError(f"still at it after {_LONGEST_S} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, _LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def fuzz_messages(seed: int, count: int) -> Counter[str]:
    """Build a bag with ``count`` damaged messages among sound ones; where its frames and poses went.

    Every other bag holds raw frames, of one encoding or another, the others JPEG with or without bytes behind its end.
    Every camera message must be seen and accounted for, whatever is in it.
    """
    draw = random.Random(seed)
    drive = drive_course(((count // 2, 0.0), (count // 4, 0.02)))
    is_raw = bool(seed % 2)
    encoding = list(ENCODINGS)[seed // 2 % len(ENCODINGS)]
    tail = (b"", b"\x12\x34", bytes(5))[seed // 2 % 3]
    camera = CAMERA_IMAGE if is_raw else CAMERA_JPEG
    topics = (camera, ODOMETRY, VELOCITY_STATUS, AWSIM_STATUS)
    stamps = camera_stamps(drive).tolist()
    sound = [
        image_cdr(ns, raw_picture(n, encoding), encoding) if is_raw else compressed_cdr(ns, jpeg(n) + tail)
        for n, ns in enumerate(stamps)
    ]
    # Half of the damaged messages are frames, the others come between the sound poses, speeds and statuses.
    spoilt = set(draw.sample(range(len(stamps)), min(count // 2, len(stamps) // 2)))
    frames = [
        (ns, damaged(cdr, draw) if number in spoilt else cdr)
        for number, (ns, cdr) in enumerate(zip(stamps, sound, strict=True))
    ]
    extra = []
    for _ in range(count - len(spoilt)):
        at = draw.randrange(len(drive.stamps_ns))
        ns = int(drive.stamps_ns[at]) + 7_000_000
        kind, cdr = draw.choice(
            (
                (ODOMETRY, odometry_cdr(ns, drive.poses[at], 5.0)),
                (VELOCITY_STATUS, velocity_cdr(ns, 5.0)),
                (AWSIM_STATUS, status_cdr(1)),
            )
        )
        extra.append((kind.name, ns, damaged(cdr, draw)))
    with tempfile.TemporaryDirectory() as place, no_hang():
        bag = write_bag(Path(place) / "bag", drive, frames=frames, topics=topics, extra=extra)
        report, samples, out = build(Path(place), bag)
        assert report.seen == len(stamps) and len(samples) == report.kept
        for sample in samples:
            assert all((out / name).stat().st_size > 100 for name in sample.frames)
        manifest = json.loads((out / "manifest.json").read_text())
    left_out = {f"pose: {reason}": count for reason, count in manifest["poses_left_out"]["bag"].items()}
    frames_went = {"kept": report.kept, "quarantined": report.quarantined, **report.rejected}
    return Counter({f"frame: {reason}": count for reason, count in frames_went.items()} | left_out)


def raw_picture(number: int, encoding: str) -> np.ndarray:
    """The bytes of a tiny gray picture in an encoding, (height, width, bytes per pixel)."""
    found = ENCODINGS[encoding]
    return picture(number)[:, :, :1].repeat(found.channels * found.depth, axis=2)


def fuzz_line(lines: list[str], draw: random.Random, place: Path) -> str:
    """Read one damaged line of a dataset, or of texts to curate; ``accepted``, or the field it was refused for."""
    file = place / "metadata.jsonl"
    file.write_bytes(damaged(draw.choice(lines).encode(), draw).replace(b"\n", b" "))
    (place / MANIFEST_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION}))
    read = draw.choice((lambda: list(read_samples(place)), lambda: list(load_texts(file).items())))
    with no_hang():
        try:
            read_something = read()
        except MonoError as error:
            if "line 1" not in str(error):
                raise
            field = re.search(r"line 1(?:, field (the line itself|[a-z_]+))?", str(error))
            return f"refused: {field.group(1) or 'the line itself'}" if field else "refused"
    return "accepted" if read_something else "empty"


# In what a recording may lie: chunks as they are or compressed, messages or files compressed, a database with its log.
STORAGES = ("mcap", "lz4", "zstd", "messages", "mcap.zstd", "sqlite3", "wal")


@lru_cache(maxsize=len(STORAGES))
def sound_bag(storage: str) -> tuple[dict[str, bytes], int]:
    """The files of a small bag, and how many frames it has."""
    drive = drive_course(((30, 0.0), (20, 0.05)))
    frames = len(camera_stamps(drive))
    with tempfile.TemporaryDirectory() as place:
        bag = write_bag(Path(place) / "bag", drive)
        if storage in ("sqlite3", "wal"):
            bag = as_sqlite3(bag, Path(place) / "other" / "bag")
        if storage == "wal":
            return with_log(next(bag.glob("*.db3"))), frames
        if storage in ("lz4", "zstd", "messages"):
            bag = as_mcap(bag, Path(place) / "other", storage)
        files = {file.name: file.read_bytes() for file in bag.iterdir()}
    if storage == "mcap.zstd":
        files = {f"{name}.zstd": zstandard.compress(data) for name, data in files.items() if name.endswith(".mcap")}
    return files, frames


def as_mcap(bag: Path, folder: Path, compression: str) -> Path:
    """The same messages in small chunks of another compression, or each compressed by itself; no metadata.yaml."""
    folder.mkdir()
    kinds = {"lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD, "messages": CompressionType.NONE}
    with open_bag(bag) as source, (folder / "bag_0.mcap").open("wb") as stream:
        writer = McapWriter(stream, chunk_size=20_000, compression=kinds[compression])
        writer.start("ros2", "another program")
        channels = {
            name: writer.register_channel(name, "cdr", writer.register_schema(kind, "ros2msg", b""))
            for name, kind in source.topics.items()
        }
        for channel, ns, data in source._raw(list(source.topics)):
            packed = zstandard.compress(data) if compression == "messages" else data
            writer.add_message(channels[channel.topic], ns, packed, ns)
        writer.finish()
    return folder


def with_log(file: Path) -> dict[str, bytes]:
    """The files of a killed recording: a database whose last rows are still in its write-ahead log."""
    database = sqlite3.connect(file)
    for line in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA wal_autocheckpoint=0",
        "CREATE TEMP TABLE t AS SELECT * FROM messages",
    ):
        database.execute(line)
    database.execute("DELETE FROM messages WHERE id > 100")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(FULL)")
    database.execute("INSERT INTO messages SELECT * FROM t WHERE id > 100")
    database.commit()
    found = {name: file.with_name(name).read_bytes() for name in (file.name, f"{file.name}-wal")}
    database.close()
    return found


def as_sqlite3(bag: Path, folder: Path) -> Path:
    """The same bag in the other storage."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_bag(bag) as source, Writer(folder, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {
            name: writer.add_connection(name, kind, typestore=typestore()) for name, kind in source.topics.items()
        }
        for channel, received_ns, raw in source._raw(list(source.topics)):
            writer.write(connections[channel.topic], received_ns, raw)
    return folder


def fuzz_file(seed: int) -> Counter[str]:
    """Build from a bag of which one file is damaged; where its frames went, or why it was refused."""
    draw = random.Random(seed)
    files, frames = sound_bag(draw.choice(STORAGES))
    # Mostly the recording itself, now and then its metadata.yaml.
    struck = sorted(files, key=lambda name: len(files[name]))[0 if draw.random() < 0.15 else -1]
    with tempfile.TemporaryDirectory() as place, no_hang():
        bag = Path(place) / "bag"
        bag.mkdir()
        for name, data in files.items():
            (bag / name).write_bytes(damaged(data, draw) if name == struck else data)
        path = bag / struck if draw.random() < 0.3 and struck != "metadata.yaml" else bag
        try:
            report = build_dataset(BuildConfig((path,), Path(place) / "out", val_fraction=0.0), show_progress=False)
        except MonoError as error:
            reason = re.sub(r"[/\w.-]*bag[/\w.-]*", "BAG", str(error).split(":")[0].split(";")[0])[:60]
            return Counter({f"refused: {reason}": 1})
        report.check_sum()
        # A part that is doubled holds messages twice.
        assert report.seen <= 2 * frames
    breaks = {"broken off, the part before used": 1} if report.breaks else {"read to the end": 1}
    return Counter({"frame: kept": report.kept} | {f"frame: {k}": n for k, n in report.rejected.items()} | breaks)
