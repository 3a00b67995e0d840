"""Recordings that meet a limit: split by size or minutes, a quota, a full disk; what was written stays readable."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import collector.bags.writer
from collector.bags.metadata import RESERVE_FILE
from collector.bags.reader import open_bag
from collector.bags.recover import recover_bag
from collector.bags.writer import BagWriter
from collector.common.errors import MonoError
from collector.recording.recorder import BagRecorder
from collector.ros.topics import AWSIM_STATE, CAMERA_JPEG, VELOCITY_STATUS
from tests.helpers.bag_readings import counts_by_others, read_contents_end, speeds_in
from tests.helpers.recorded_messages import picture, velocity_cdr

SECOND = 1_000_000_000


def feed(recorder: BagRecorder, number: int, period_ns: int = SECOND // 10, first: int = 0) -> None:
    for k in range(first, first + number):
        stamp_ns = SECOND + k * period_ns
        recorder.write(VELOCITY_STATUS.name, stamp_ns, velocity_cdr(stamp_ns, float(k)))
        recorder.write_image(stamp_ns, 48, 64, "bgr8", picture(k).tobytes())


@pytest.mark.parametrize("limit", [{"split_bytes": 20_000}, {"split_ns": 2 * SECOND}])
def test_long_recordings_are_split_and_read_as_one(tmp_path: Path, limit: dict[str, int]) -> None:
    recorder = BagRecorder(
        tmp_path / "bag", [VELOCITY_STATUS, CAMERA_JPEG, AWSIM_STATE], queue_frames=200, jpeg_workers=3, **limit
    )
    feed(recorder, 120)
    report = recorder.close()
    assert report.missing == 0
    files = sorted((tmp_path / "bag").glob("*.mcap"))
    assert len(files) >= 6
    assert counts_by_others(tmp_path / "bag") == {VELOCITY_STATUS.name: 120, CAMERA_JPEG.name: 120}
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert sum(row["message_count"] for row in information["files"]) == information["message_count"] == 240
    assert information["relative_file_paths"] == [f"bag_{k}.mcap" for k in range(len(files))]
    with open_bag(tmp_path / "bag") as bag:
        stamps = [frame.stamp_ns for frame in bag.frames(CAMERA_JPEG.name)]
    assert stamps == [SECOND + k * SECOND // 10 for k in range(120)], "in order across files and workers"
    # Killed after the last split: the earlier files are whole, the last one is mended.
    (tmp_path / "bag" / "metadata.yaml").unlink()
    last = tmp_path / "bag" / f"bag_{len(files) - 1}.mcap"
    last.write_bytes(last.read_bytes()[: read_contents_end(last)])
    repairs = recover_bag(tmp_path / "bag")
    assert [repair.was_finished for repair in repairs] == [True] * (len(files) - 1) + [False]
    assert counts_by_others(tmp_path / "bag") == {VELOCITY_STATUS.name: 120, CAMERA_JPEG.name: 120}


def test_files_are_split_at_the_minute_asked_for(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", [VELOCITY_STATUS], split_ns=60 * SECOND)
    for k in range(1000):
        writer.write(VELOCITY_STATUS.name, k * SECOND // 4, velocity_cdr(k, float(k)))
    writer.close()
    rows = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["files"]
    assert [row["message_count"] for row in rows] == [240] * 4 + [40]
    assert speeds_in(tmp_path / "bag") == [float(k) for k in range(1000)]


class Quota:
    """A file on a disk that takes so many bytes in all and then refuses, as write(2) does: partly, then an error."""

    left = 0

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)

    def write(self, data: Any) -> int:
        room = memoryview(data)[: Quota.left]
        Quota.left -= len(room)
        self._file.write(room)
        if len(room) < len(data):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [9_000, 30_001, 64_000])
def test_a_quota_ends_the_recording_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(collector.bags.writer, "create_file", Quota)
    monkeypatch.setattr(collector.bags.writer, "FLUSH_S", 0.0)
    Quota.left = room
    recorder = BagRecorder(tmp_path / "bag", [VELOCITY_STATUS, CAMERA_JPEG], queue_frames=500)
    feed(recorder, 399)
    # Frames are compressed beside us: on a busy machine every other message may be written before they fill the disk.
    deadline = time.monotonic() + 30.0
    while not recorder.error and time.monotonic() < deadline:
        time.sleep(0.01)
    feed(recorder, 1, first=399)
    report = recorder.close()
    assert "takes no more" in recorder.error == report.error and recorder.is_finished
    held = counts_by_others(tmp_path / "bag")
    rows = {row.name: row for row in report.topics}
    for name, row in rows.items():
        assert row.received == 400 and row.dropped == 400 - held.get(name, 0) > 0
    # What was accepted before the end is there without a hole.
    assert speeds_in(tmp_path / "bag") == [float(k) for k in range(held[VELOCITY_STATUS.name])]
    assert json.loads((tmp_path / "bag" / "recording_report.json").read_text())["error"]
    assert not (tmp_path / "bag" / RESERVE_FILE).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_cleanly_and_keeps_what_came_before(small_disk: Path) -> None:
    recorder = BagRecorder(small_disk / "bag", [VELOCITY_STATUS, CAMERA_JPEG], jpeg_quality=100)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8).tobytes()
    sent = 0
    while not recorder.error and sent < 5_000:
        stamp_ns = SECOND + sent * SECOND // 10
        recorder.write(VELOCITY_STATUS.name, stamp_ns, velocity_cdr(stamp_ns, float(sent)))
        recorder.write_image(stamp_ns, 240, 320, "bgr8", noise)
        sent += 1
        time.sleep(0.002)
    report = recorder.close()
    assert "No space left" in report.error and recorder.is_finished
    held = counts_by_others(small_disk / "bag")
    stored_bytes = sum(path.stat().st_size for path in (small_disk / "bag").glob("*.mcap"))
    assert stored_bytes > 3_500_000, "all room but the reserve was used"
    assert speeds_in(small_disk / "bag") == [float(k) for k in range(held[VELOCITY_STATUS.name])]
    rows = {row.name: row for row in report.topics}
    assert rows[CAMERA_JPEG.name].dropped == rows[CAMERA_JPEG.name].received - held[CAMERA_JPEG.name] > 0
    with pytest.raises(MonoError, match="cannot be begun"):
        BagWriter(small_disk / "another", [VELOCITY_STATUS], reserve_bytes=8 * 2**20)
    assert not (small_disk / "another").exists(), "a second try under this name must be possible"
