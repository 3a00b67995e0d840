"""The recorder's core and its report: what goes in comes out of plain bag readers, and every loss is counted."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import collector.recording.recorder
from collector.bags.reader import open_bag, typestore
from collector.common.errors import MonoError
from collector.recording.recorder import BagRecorder
from collector.recording.report import REPORT_FILE, TopicLog, missing_messages, read_report
from collector.ros.images import RawFrame
from collector.ros.topics import AWSIM_STATE, CAMERA_INFO, CAMERA_JPEG, CLOCK, ODOMETRY, RECORDED, VELOCITY_STATUS
from tests.helpers.recorded_messages import SECOND, picture, velocity_cdr


def test_everything_written_is_read_by_rosbags_and_by_mcap(tmp_path: Path) -> None:
    folder = tmp_path / "drive"
    recorder = BagRecorder(folder, RECORDED, queue_frames=200)
    for number in range(100):
        stamp_ns = 5 * SECOND + number * SECOND // 10
        assert recorder.write_image(
            stamp_ns, 48, 64, "bgr8", picture(number).tobytes(), received_ns=stamp_ns + 7, frame_id="eye"
        )
        assert recorder.write(VELOCITY_STATUS.name, stamp_ns + 9, velocity_cdr(stamp_ns, number / 10))
    report = recorder.close()
    rows = {topic.name: topic for topic in report.topics}
    for name in (CAMERA_JPEG.name, VELOCITY_STATUS.name):
        assert (rows[name].expected, rows[name].received, rows[name].lost, rows[name].dropped) == (100, 100, 0, 0)
        assert rows[name].rate_hz == pytest.approx(10.0)
    assert rows[ODOMETRY.name].received == 0
    assert json.loads((folder / "recording_report.json").read_text())["topics"][0]["name"] == CAMERA_JPEG.name
    assert CAMERA_JPEG.name in report.table()

    with open_bag(folder) as bag:
        frames = list(bag.frames(bag.image_topic()))
        speeds = [message.longitudinal_velocity for _, message in bag.messages(VELOCITY_STATUS.name)]
    assert speeds == pytest.approx([number / 10 for number in range(100)])
    assert [frame.stamp_ns for frame in frames] == [5 * SECOND + number * SECOND // 10 for number in range(100)]
    assert frames[3].frame_id == "eye" and frames[3].received_ns == frames[3].stamp_ns + 7
    decoded = cv2.imdecode(np.frombuffer(frames[3].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert np.mean(np.abs(decoded.astype(float) - picture(3))) < 4.0

    mcap_reader = pytest.importorskip("mcap.reader")
    with next(folder.glob("*.mcap")).open("rb") as stream:
        reader = mcap_reader.make_reader(stream)
        seen = [channel.topic for _, channel, _ in reader.iter_messages()]
        schemas = {schema.name: schema for schema in reader.get_summary().schemas.values()}
    assert seen.count(CAMERA_JPEG.name) == seen.count(VELOCITY_STATUS.name) == 100
    assert b"float32 longitudinal_velocity" in schemas[VELOCITY_STATUS.type].data
    metadata = (folder / "metadata.yaml").read_text()
    assert "version: 8" in metadata and "storage_identifier: mcap" in metadata


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "rgba8", "mono8"])
def test_every_encoding_keeps_its_colours(tmp_path: Path, encoding: str) -> None:
    """A picture that is red on the left comes back red on the left, padding bytes at the row ends left out."""
    bgr = np.zeros((32, 48, 3), np.uint8)
    bgr[:, :24, 2] = 255
    code = {
        "rgb8": cv2.COLOR_BGR2RGB,
        "bgra8": cv2.COLOR_BGR2BGRA,
        "rgba8": cv2.COLOR_BGR2RGBA,
        "mono8": cv2.COLOR_BGR2GRAY,
    }
    sent = bgr if encoding == "bgr8" else cv2.cvtColor(bgr, code[encoding])
    rows = sent.reshape(32, -1)
    padded = np.concatenate([rows, np.full((32, 5), 200, np.uint8)], axis=1)
    with BagRecorder(tmp_path / "bag", [CAMERA_JPEG], jpeg_quality=100) as recorder:
        recorder.write_image(1, 32, 48, encoding, padded.tobytes(), step=rows.shape[1] + 5)
    with open_bag(tmp_path / "bag") as bag:
        (frame,) = bag.frames(CAMERA_JPEG.name)
    back = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.cvtColor(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) if encoding == "mono8" else bgr
    assert np.abs(back[:, :20].astype(int) - expected[:, :20]).max() < 12
    assert np.abs(back[:, 28:].astype(int) - expected[:, 28:]).max() < 12


def test_losses_before_us_are_counted_from_header_stamps(tmp_path: Path) -> None:
    recorder = BagRecorder(tmp_path / "bag", [VELOCITY_STATUS, CAMERA_JPEG], queue_frames=100)
    missing = {10, 11, 12, 40, 77}
    for number in range(100):
        if number not in missing:
            stamp_ns = number * 105_000_000  # 9.52 Hz where 10 Hz is announced
            recorder.write_image(stamp_ns, 48, 64, "rgb8", picture(1).tobytes())
    report = recorder.close()
    camera = next(topic for topic in report.topics if topic.name == CAMERA_JPEG.name)
    assert (camera.expected, camera.received, camera.lost) == (100, 95, 5)
    assert camera.worst_gap_s == pytest.approx(0.42)
    (silent,) = (topic for topic in report.topics if topic.name == VELOCITY_STATUS.name)
    assert report.missing == 5 and camera.missing_share == pytest.approx(0.05)
    assert silent.missing_share == 0.0


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5, 0.7])
def test_missing_messages_at_any_loss(loss: float) -> None:
    rng = np.random.default_rng(3)
    stamps = np.arange(1000) * 20_000_000 + rng.integers(-3_000_000, 3_000_000, 1000)
    kept = np.sort(rng.random(1000).argsort()[: round(1000 * (1 - loss))])
    kept[0], kept[-1] = 0, 999
    kept = np.unique(kept)
    assert missing_messages(stamps[kept], 50.0) == pytest.approx(1000 - len(kept), abs=8)


@pytest.mark.parametrize("period_ns", [10_000_000, 33_333_333, 105_000_000])
def test_a_sender_that_stands_still_and_catches_up_misses_nothing(period_ns: int) -> None:
    """A busy machine: every three seconds or so it takes up to half a second away, then sends what it owes."""
    rng = np.random.default_rng(5)
    plan = np.arange(3000, dtype=np.int64) * period_ns
    stamps, busy_until = [], 0
    for due in plan:
        if rng.random() < period_ns / 3e9:
            busy_until = max(busy_until, due + int(rng.uniform(0.02, 0.5) * SECOND))
        busy_until = max(due, busy_until) + int(rng.uniform(0.0, 0.1) * 1e6)
        stamps.append(busy_until)
    late = np.array(stamps)
    nominal_hz = {10_000_000: 100.0, 33_333_333: 10.0, 105_000_000: 10.0}[period_ns]
    assert missing_messages(late, nominal_hz) <= 3
    kept = np.delete(late, rng.choice(np.arange(1, 2999), 150, replace=False))
    assert missing_messages(kept, nominal_hz) == pytest.approx(150, abs=25)


@pytest.mark.parametrize(("nominal_hz", "real_hz"), [(10.0, 30.0), (10.0, 9.5), (10.0, 5.0), (100.0, 100.0)])
def test_the_beat_is_measured_not_believed(nominal_hz: float, real_hz: float) -> None:
    stamps = (np.arange(1000) * 1e9 / real_hz).astype(np.int64)
    assert missing_messages(stamps, nominal_hz) == 0
    assert missing_messages(np.delete(stamps, [3, 50, 51, 52, 700]), nominal_hz) == 5


def test_bursts_are_no_beat() -> None:
    """A starved machine: twenty ticks of a 100 Hz clock every fifth of a second."""
    stamps = np.concatenate([k * SECOND // 5 + np.arange(20) * 150_000 for k in range(100)])
    assert missing_messages(stamps, 100.0) <= 3


def test_topics_that_come_when_they_please_miss_nothing() -> None:
    log = TopicLog("/awsim/state", "std_msgs/msg/String", None)
    for at_s in (0, 3, 50):
        log.add(at_s * SECOND, None)
    assert (log.report().expected, log.report().lost) == (3, 0)
    assert missing_messages(np.array([0, SECOND, 60 * SECOND])) == 0
    reset = TopicLog("/clock", CLOCK.type, 100.0)
    for stamp in (0, 10, 20, 0, 10, 20):
        reset.add(stamp * 1_000_000, stamp * 1_000_000)
    assert (reset.report().clock_resets, reset.report().lost) == (1, 0)


def test_a_full_queue_drops_and_counts_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    import collector.recording.recorder as module

    real = module.compressed_image_cdr

    def slow(*arguments: object) -> object:
        gate.wait(10.0)
        return real(*arguments)

    monkeypatch.setattr(module, "compressed_image_cdr", slow)
    recorder = BagRecorder(tmp_path / "bag", [CAMERA_JPEG], queue_frames=3, jpeg_workers=1)
    taken = [recorder.write_image(n * SECOND // 10, 48, 64, "bgr8", picture(n).tobytes()) for n in range(20)]
    gate.set()
    report = recorder.close()
    (camera,) = report.topics
    assert taken.count(False) == camera.dropped >= 16
    assert camera.received == camera.expected == 20 and report.jpeg_queue_high_water == 3
    with open_bag(tmp_path / "bag") as bag:
        assert bag.counts[CAMERA_JPEG.name] == 20 - camera.dropped


def test_broken_frames_are_dropped_and_counted(tmp_path: Path) -> None:
    recorder = BagRecorder(tmp_path / "bag", [CAMERA_JPEG])
    recorder.write_image(0, 48, 64, "bgr8", picture(0).tobytes())
    recorder.write_image(1, 48, 64, "bgr8", b"too short")
    recorder.write_image(2, 48, 64, "32FC1", picture(0).tobytes())
    recorder.write_image(3, 0, 0, "bgr8", b"")
    report = recorder.close()
    (camera,) = report.topics
    assert (camera.received, camera.dropped) == (4, 3)
    assert "a frame of 9 bytes" in report.frame_error and report.frame_error in report.table()


def test_a_report_that_finds_no_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    recorder = BagRecorder(tmp_path / "bag", [VELOCITY_STATUS])
    monkeypatch.setattr(collector.recording.recorder.RecordingReport, "write", full)
    assert "No space left" in recorder.close().error


def test_reports_of_version_0_1_are_read(tmp_path: Path) -> None:
    with BagRecorder(tmp_path / "bag", [VELOCITY_STATUS]) as recorder:
        recorder.write(VELOCITY_STATUS.name, 1, velocity_cdr(1, 1.0))
        report = recorder.close()
    assert read_report(tmp_path / "bag") == report
    (tmp_path / "bag" / REPORT_FILE).rename(tmp_path / "bag" / "receipt.json")
    assert read_report(tmp_path / "bag") == report


def test_many_threads_and_a_late_writer(tmp_path: Path) -> None:
    recorder = BagRecorder(tmp_path / "bag", [VELOCITY_STATUS, AWSIM_STATE])

    def feed(offset: int) -> None:
        for number in range(200):
            recorder.write(VELOCITY_STATUS.name, offset + number, velocity_cdr(offset + number, 1.0))

    threads = [threading.Thread(target=feed, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = recorder.close()
    assert report.topics[0].received == 800 and recorder.close() == report
    assert recorder.write(VELOCITY_STATUS.name, 1, velocity_cdr(1, 1.0)) is False
    with open_bag(tmp_path / "bag") as bag:
        assert bag.counts[VELOCITY_STATUS.name] == 800


def test_a_failing_disk_ends_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = BagRecorder(tmp_path / "bag", [VELOCITY_STATUS])
    real, written = recorder._bag.write, []

    def full(name: str, received_ns: int, cdr: bytes) -> None:
        if len(written) >= 5:
            raise OSError(28, "No space left on device")
        written.append(received_ns)
        real(name, received_ns, cdr)

    monkeypatch.setattr(recorder._bag, "write", full)
    for number in range(20):
        recorder.write(VELOCITY_STATUS.name, number, velocity_cdr(number, 1.0))
    report = recorder.close()
    assert "No space left" in report.error and "No space left" in recorder.error
    assert report.topics[0].dropped == 15 and "ended early" in report.table()
    with open_bag(tmp_path / "bag") as bag:
        assert bag.counts[VELOCITY_STATUS.name] == 5


def test_a_topic_that_falls_silent_before_the_end_is_missing_its_rest(tmp_path: Path) -> None:
    """A camera that dies leaves no gap between its stamps."""
    with BagRecorder(tmp_path / "bag", [VELOCITY_STATUS, CAMERA_JPEG, AWSIM_STATE], queue_frames=100) as recorder:
        for number in range(300):
            stamp_ns = number * SECOND // 30
            recorder.write(VELOCITY_STATUS.name, stamp_ns, velocity_cdr(stamp_ns, 1.0))
            if number < 180 and number % 3 == 0:
                recorder.write_image(stamp_ns, 48, 64, "bgr8", picture(1).tobytes())
        report = recorder.close()
    rows = {row.name: row for row in report.topics}
    assert (rows[CAMERA_JPEG.name].received, rows[CAMERA_JPEG.name].lost) == (60, 40)
    assert rows[CAMERA_JPEG.name].worst_gap_s == pytest.approx(4.1)
    assert rows[VELOCITY_STATUS.name].missing == rows[AWSIM_STATE.name].missing == 0
    assert report.excess(0.4) == ""
    assert "misses 40 of 100 messages (40.0%; 40 never came, 0 were dropped here)" in report.excess(0.39)
    assert "\n" not in report.excess(0.39)


@pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "mono8", "mono16", "bayer_rggb8"])
def test_scaling_shrinks_picture_and_camera_info_alike(tmp_path: Path, encoding: str) -> None:
    """A point seen through the scaled CameraInfo lies where the scaled picture shows it."""
    store = typestore()
    types, width, height, spot = store.types, 322, 180, (201.0, 77.0)  # an odd half: 161x90
    gray = np.zeros((height, width), np.uint8)
    gray[75:80, 198:205] = 255  # centred on the spot
    channels = {"bgr8": 3, "rgba8": 4, "mono8": 1, "mono16": 2, "bayer_rggb8": 1}[encoding]  # bytes
    pixels = np.repeat(gray[:, :, None], channels, axis=2)
    stamp = types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    k = np.array([160.0, 0.0, 161.5, 0.0, 150.0, 89.5, 0.0, 0.0, 1.0])
    info = types[CAMERA_INFO.type](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="eye"),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.array([0.1, 0.2, 0.0, 0.0, 0.3]),
        k=k,
        r=np.eye(3).ravel(),
        p=np.insert(k, [3, 6, 9], [-32.0, 0.0, 0.0]),
        binning_x=0,
        binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )
    topics = [CAMERA_JPEG, CAMERA_INFO, VELOCITY_STATUS]
    speed = velocity_cdr(5, 2.5)
    with BagRecorder(tmp_path / "bag", topics, jpeg_quality=100, image_scale=0.5) as recorder:
        recorder.write_image(5, height, width, encoding, pixels.tobytes())
        recorder.write(CAMERA_INFO.name, 5, store.serialize_cdr(info, CAMERA_INFO.type))
        recorder.write(CAMERA_INFO.name, 6, b"\x00\x01\x00\x00 no CameraInfo")
        recorder.write(VELOCITY_STATUS.name, 5, speed)
        report = recorder.close()
    assert [row.dropped for row in report.topics] == [0, 1, 0]
    with open_bag(tmp_path / "bag") as bag:
        (frame,) = bag.frames(CAMERA_JPEG.name)
        ((_, scaled),) = bag.messages(CAMERA_INFO.name)
        assert [raw for _, _, raw in bag._raw([VELOCITY_STATUS.name])] == [speed]
    picture_back = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
    assert picture_back.shape == (scaled.height, scaled.width) == (90, 161)
    rows, columns = np.mgrid[:90, :161]
    bright = np.where(picture_back > 20.0, picture_back, 0.0)
    seen = np.array([(columns * bright).sum(), (rows * bright).sum()]) / bright.sum()
    # The ray through the spot by the camera's own matrix, projected by the scaled one.
    ray = np.linalg.inv(k.reshape(3, 3)) @ [*spot, 1.0]
    for matrix in (scaled.k.reshape(3, 3), scaled.p.reshape(3, 4)[:, :3]):
        np.testing.assert_allclose((matrix @ ray)[:2], seen, atol=0.1)  # half a pixel of offset would show as 0.25
    assert scaled.p[3] == pytest.approx(-16.0) and list(scaled.d) == [0.1, 0.2, 0.0, 0.0, 0.3]
    assert (scaled.header.frame_id, scaled.header.stamp.nanosec) == ("eye", 4)


def test_frames_keep_their_order_whatever_the_workers_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import collector.recording.recorder as module

    real = module.compressed_image_cdr

    def uneven(frame: RawFrame, *rest: float) -> memoryview:
        time.sleep(0.02 if frame.stamp_ns % 3 == 0 else 0.0)
        if frame.stamp_ns == 17:
            raise RuntimeError("a worker meets what nobody thought of")
        return real(frame, *rest)

    monkeypatch.setattr(module, "compressed_image_cdr", uneven)
    written: list[int] = []
    with BagRecorder(tmp_path / "bag", [CAMERA_JPEG], jpeg_workers=4) as recorder:
        write = recorder._bag.write
        monkeypatch.setattr(recorder._bag, "write", lambda *args: (written.append(args[1]), write(*args)))
        for number in range(40):
            recorder.write_image(number, 48, 64, "bgr8", picture(1).tobytes())
        report = recorder.close()
    assert written == [number for number in range(40) if number != 17]
    assert report.topics[0].dropped == 1


def test_wrong_use_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="JPEG quality"):
        BagRecorder(tmp_path / "a", [CAMERA_JPEG], jpeg_quality=0)
    with pytest.raises(MonoError, match="worker"):
        BagRecorder(tmp_path / "a", [CAMERA_JPEG], jpeg_workers=0)
    with pytest.raises(MonoError, match="no definition of nobody/msg/Knows"):
        BagRecorder(tmp_path / "a", [replace(CAMERA_JPEG, type="nobody/msg/Knows")])
    for scale in (0.0, 1.5, float("nan")):
        with pytest.raises(MonoError, match="image scale"):
            BagRecorder(tmp_path / "a", [CAMERA_JPEG], image_scale=scale)
    assert not (tmp_path / "a").exists()
    with BagRecorder(tmp_path / "a", [CAMERA_JPEG]) as recorder, pytest.raises(MonoError, match="/odd"):
        recorder.write("/odd", 0, b"")
    with pytest.raises(MonoError, match="exists"):
        BagRecorder(tmp_path / "a", [CAMERA_JPEG])
