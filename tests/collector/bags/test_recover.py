"""Recordings that are killed or torn at any byte: what was written stays readable."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

import collector.bags.writer
from collector.bags.mcap_records import read_contents
from collector.bags.reader import open_bag
from collector.bags.recover import main, recover_bag
from collector.bags.writer import BagWriter
from collector.common.errors import MonoError
from collector.common.output_folder import lock_folder
from collector.recording.recorder import BagRecorder
from collector.ros.topics import AWSIM_STATE, CAMERA_JPEG, VELOCITY_STATUS
from tests.helpers.bag_readings import counts_by_others, read_contents_end, speeds_in
from tests.helpers.paths import ROOT
from tests.helpers.recorded_messages import velocity_cdr
from tests.helpers.synthetic_bag import drive_course, write_bag

SECOND = 1_000_000_000


def written_bag(folder: Path, number: int = 300, flush_every: int = 50) -> Path:
    """A bag as a killed recorder leaves it: flushed now and then, never closed; returns its file."""
    writer = BagWriter(folder, [VELOCITY_STATUS, AWSIM_STATE])
    for k in range(number):
        writer.write(VELOCITY_STATUS.name, SECOND + k * 1000, velocity_cdr(k, float(k)))
        if (k + 1) % flush_every == 0:
            writer._flushed_s = -1e9
            writer.keep_safe()
    os.close(writer._stream.fileno())  # the process is gone: nothing more is flushed, nothing held
    os.close(writer._lock)
    return folder / f"{folder.name}_0.mcap"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    return written_bag(tmp_path / "killed").parent


def test_a_file_torn_at_any_byte_becomes_a_bag(tmp_path: Path, killed: Path) -> None:
    whole = (killed / "killed_0.mcap").read_bytes()
    rng = np.random.default_rng(7)
    first = whole.index(b"\x06", 8)  # the first chunk
    places = [0, 3, 8, 20, first, first + 9, first + 60, len(whole) - 1, len(whole)]
    places += list(rng.integers(first, len(whole), 30))
    before: list[int] = []
    for place in sorted(places):
        folder = tmp_path / f"torn{place}"
        folder.mkdir(exist_ok=True)
        (folder / "x_0.mcap").write_bytes(whole[:place])
        directly: list[int] = []
        with suppress(MonoError), open_bag(folder) as bag:  # refused only where nothing at all can be read
            assert f"alpamayo-mono recover {folder}" in bag.breaks_off
            directly = [round(speed) for speed in speeds_in(folder)]
        (repair,) = recover_bag(folder)
        numbers = [round(speed) for speed in speeds_in(folder)] if repair.file.messages else []
        assert directly == numbers[: len(directly)] and len(directly) >= 0.5 * len(before)
        assert numbers == list(range(len(numbers))) and len(numbers) >= len(before)
        assert counts_by_others(folder) == ({VELOCITY_STATUS.name: len(numbers)} if numbers else {})
        if repair.aside is not None:
            # Nothing is destroyed: what was kept and what was set aside are the original.
            torn = repair.aside.read_bytes()
            assert len(torn) == repair.bytes_cut
            assert (folder / "x_0.mcap").read_bytes()[: place - len(torn)] + torn == whole[:place]
        assert all(again.was_finished for again in recover_bag(folder))
        before = numbers
        shutil.rmtree(folder)
    assert len(before) == 300, "the untorn file held everything that was flushed"


def test_a_slow_disk_keeps_nothing_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, synced = threading.Event(), []

    def slow(descriptor: int) -> None:
        assert released.wait(20.0)
        os.fstat(descriptor)  # still open
        synced.append(descriptor)

    monkeypatch.setattr(collector.bags.writer.os, "fdatasync", slow)
    writer = BagWriter(tmp_path / "bag", [VELOCITY_STATUS], split_ns=SECOND)
    for number in range(4):  # the last one in a second file
        writer.write(VELOCITY_STATUS.name, number * SECOND // 3, velocity_cdr(number, float(number)))
        writer._flushed_s = writer._synced_s = -1e9
        writer.keep_safe()
    # Killed now, with a sync under way: all is in the files that a reader sees.
    copy = shutil.copytree(tmp_path / "bag", tmp_path / "copy")
    recover_bag(copy)
    assert speeds_in(copy) == [0.0, 1.0, 2.0, 3.0] and not synced
    released.set()
    writer.close()
    assert len(synced) >= 3 and speeds_in(tmp_path / "bag") == [0.0, 1.0, 2.0, 3.0]


def test_messages_of_a_half_chunk_are_kept(tmp_path: Path, killed: Path) -> None:
    path = killed / "killed_0.mcap"
    whole = path.read_bytes()
    ends = [index.chunk_start_offset + index.chunk_length for index in read_contents(path).chunks]
    path.write_bytes(whole[: ends[-1] - 1])
    (repair,) = recover_bag(killed)
    assert repair.salvaged == 49 and repair.file.messages == 299
    assert speeds_in(killed) == [float(k) for k in range(299)]


def test_a_damaged_chunk_costs_itself_only(tmp_path: Path, killed: Path) -> None:
    path = killed / "killed_0.mcap"
    data = bytearray(path.read_bytes())
    second = read_contents(path).chunks[1]
    middle = second.chunk_start_offset + second.chunk_length // 2
    data[middle : middle + 40] = bytes(40)  # a page that never reached the disk
    path.write_bytes(data)
    (repair,) = recover_bag(killed)
    assert repair.damaged_chunks == 1 and repair.aside is None
    assert speeds_in(killed) == [float(k) for k in (*range(50), *range(100, 300))]
    assert counts_by_others(killed) == {VELOCITY_STATUS.name: 250}


def test_bags_of_other_recorders_are_recovered_too(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    from collector.bags.reader import typestore

    folder = tmp_path / "foreign"
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
    writer.open()
    topic = writer.add_connection(VELOCITY_STATUS.name, VELOCITY_STATUS.type, typestore=typestore())
    for k in range(40_000):
        writer.write(topic, k, velocity_cdr(k, float(k)))
    writer.storage.bio.flush()  # type: ignore[union-attr]
    size = (folder / "foreign.mcap").stat().st_size
    writer.abort()
    (repair,) = recover_bag(folder)
    assert size > 1_000_000 and repair.file.messages > 5_000
    assert speeds_in(folder) == [float(k) for k in range(repair.file.messages)]


def test_recover_refuses_what_it_cannot_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MonoError, match="no bag at"):
        recover_bag(tmp_path / "nowhere")
    with pytest.raises(MonoError, match="no bag was named"):
        main([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MonoError, match=r"no \.mcap"):
        recover_bag(tmp_path / "empty")
    other = tmp_path / "text.mcap"
    other.write_bytes(b"this is no bag at all")
    with pytest.raises(MonoError, match="does not begin like"):
        recover_bag(other)
    assert other.read_bytes() == b"this is no bag at all"
    with BagRecorder(tmp_path / "live", [VELOCITY_STATUS]) as recorder:
        with pytest.raises(MonoError, match="being recorded"):
            recover_bag(tmp_path / "live")
        recorder.write(VELOCITY_STATUS.name, 1, velocity_cdr(1, 1.0))
    before = {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()}
    assert main([str(tmp_path / "live")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").iterdir()} == before
    assert "was finished already" in capsys.readouterr().out


def test_two_recovers_of_one_bag_do_not_meet(killed: Path) -> None:
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    handle = lock_folder(killed)
    try:
        with pytest.raises(MonoError, match=r"is being written by process \d+ .*stop the recorder first"):
            recover_bag(killed)
    finally:
        os.close(handle)
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == before
    file = next(killed.glob("*.mcap"))
    with file.open("rb") as stream:  # the file alone, while another recovers its folder
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(MonoError, match="being recorded, or recovered"):
            recover_bag(file)
    assert recover_bag(killed)[0].file.messages == 300


def test_one_bag_that_cannot_be_mended_does_not_stop_the_next(
    tmp_path: Path, killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MonoError, match=r"no bag at .*second"):
        main([str(tmp_path / "first"), str(killed), str(tmp_path / "second")])
    said = capsys.readouterr()
    assert f"{killed}: 300 messages readable" in said.out and "first" in said.err
    assert counts_by_others(killed) == {VELOCITY_STATUS.name: 300}


def test_recovered_bags_build_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bag(tmp_path / "drive", drive_course())
    expected = counts_by_others(folder)
    path = folder / "drive_0.mcap"
    data = path.read_bytes()
    path.write_bytes(data[: read_contents_end(path)])
    (folder / "metadata.yaml").unlink()
    assert main([str(folder)]) == 0
    assert counts_by_others(folder) == expected
    assert re.search(rf"{sum(expected.values())} messages readable", capsys.readouterr().out)


WRITER = """
import sys, time
from collector.recording.recorder import BagRecorder
from collector.ros.topics import CAMERA_JPEG, VELOCITY_STATUS
from tests.helpers.recorded_messages import picture, velocity_cdr
recorder = BagRecorder(sys.argv[1], [VELOCITY_STATUS, CAMERA_JPEG], split_bytes=100_000)
number = 0
while True:
    now = time.time_ns()
    recorder.write(VELOCITY_STATUS.name, now, velocity_cdr(now, 1.0))
    recorder.write_image(now, 48, 64, "bgr8", picture(number).tobytes())
    number += 1
    if number % 10 == 0:
        os.write(1, b"%d\\n" % now)
    time.sleep(0.005)
"""
# Beside it, a thread that says when the process was given time to run.
PULSE = """
import os, threading, time
def pulse():
    while True:
        os.write(1, b"pulse %d\\n" % time.time_ns())
        time.sleep(0.1)
threading.Thread(target=pulse, daemon=True).start()
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment_nothing_older_than_a_second_is_lost(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "bag"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PULSE + WRITER, str(folder)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline().startswith("pulse"):
            pass
        time.sleep(1.0 + float(np.random.default_rng(seed).uniform(0.0, 1.5)))
        process.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
        said = [line.split() for line in process.stdout.read().splitlines()[:-1]]
    sent = [int(words[0]) for words in said if len(words) == 1]
    pulses = np.array([*(int(words[1]) for words in said if len(words) == 2), killed_ns])
    # What a busy machine took from the process in its last seconds was no chance to write anything.
    stolen_ns = int(np.sum(np.maximum(np.diff(pulses)[pulses[1:] > killed_ns - 3 * SECOND] - SECOND // 5, 0)))
    due = {stamp_ns for stamp_ns in sent if stamp_ns < killed_ns - SECOND - stolen_ns}
    recover_bag(folder)
    assert sum(counts_by_others(folder).values()) > 100
    for topic in (VELOCITY_STATUS.name, CAMERA_JPEG.name):
        with AnyReader([folder]) as reader:
            chosen = [connection for connection in reader.connections if connection.topic == topic]
            held = {stamp_ns for _, stamp_ns, _ in reader.messages(chosen)}
        assert due <= held, topic
    with open_bag(folder) as bag:
        for frame in bag.frames(CAMERA_JPEG.name):
            assert frame is not None and frame.jpeg is not None
            assert cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
