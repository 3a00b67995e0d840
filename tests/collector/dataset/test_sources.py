"""Recordings that are not ours: other storages, compressions, encodings, topic names and pose types, end to end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from collector.bags.reader import open_bag, typestore
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset, main
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, load_manifest, read_samples
from collector.ros.images import ENCODINGS
from collector.ros.topics import AWSIM_STATUS, CAMERA_IMAGE, CAMERA_JPEG, CONTROL_CMD, ODOMETRY, VELOCITY_STATUS, Topic
from tests.helpers.synthetic_bag import (
    SyntheticDrive,
    camera_stamps,
    compressed_cdr,
    drive_course,
    image_cdr,
    write_bag,
)

rosbag2 = pytest.importorskip("rosbags.rosbag2")

BEND = ((30, 0.0), (10, 0.15), (30, 0.0))
NAMES = {CAMERA_IMAGE.name: "/cam/front", CAMERA_JPEG.name: "/cam/front", ODOMETRY.name: "/ekf/odom"}
TOPICS = {"image_topic": "/cam/front", "odometry_topic": "/ekf/odom"}


def rewrite(
    bag: Path, folder: Path, storage: str = "MCAP", mode: str = "NONE", names: Mapping[str, str] | None = None
) -> Path:
    """The same messages in another storage, compression and under other names."""
    names = names or {}
    writer = rosbag2.Writer(folder, version=8, storage_plugin=rosbag2.StoragePlugin[storage])
    if mode != "NONE":
        writer.set_compression(rosbag2.CompressionMode[mode], rosbag2.CompressionFormat.ZSTD)
    with writer, open_bag(bag) as source:
        connections = {
            name: writer.add_connection(names.get(name, name), kind, typestore=typestore())
            for name, kind in source.topics.items()
        }
        for channel, received_ns, raw in source._raw(list(source.topics)):
            writer.write(connections[channel.topic], received_ns, raw)
    return folder


def build(bag: Path, out: Path, **settings: Any) -> list[Sample]:
    report = build_dataset(BuildConfig((bag,), out, val_fraction=0.0, **settings), show_progress=False)
    report.check_sum()
    return list(read_samples(out))


def picture() -> np.ndarray:
    """BGR: blue left, green in the middle, red right."""
    image = np.zeros((24, 36, 3), np.uint8)
    for channel in range(3):
        image[:, 12 * channel : 12 * channel + 12, channel] = 240
    return image


# How an encoding's samples are made from BGR, gray or (for yuv422) luma and chroma.
GRAY = ("mono8", "8UC1", "mono16")
COLOURS = {"rgb": cv2.COLOR_BGR2RGB, "bgra": cv2.COLOR_BGR2BGRA, "8UC4": cv2.COLOR_BGR2BGRA, "rgba": cv2.COLOR_BGR2RGBA}


def mosaic(bgr: np.ndarray, pattern: str) -> np.ndarray:
    """The one colour that each pixel of a sensor sees; the pattern names those of the first two rows."""
    image = np.zeros(bgr.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        image[row::2, column::2] = bgr[row::2, column::2, "bgr".index(colour)]
    return image


def luma_and_chroma(bgr: np.ndarray, luma_first: bool) -> np.ndarray:
    yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV).astype(float)
    # OpenCV's own conversion has the full range; cameras send 16 to 235.
    y = yuv[:, :, 0] * 219 / 255 + 16
    chroma = np.stack([yuv[:, 0::2, 1], yuv[:, 0::2, 2]], axis=2).reshape(y.shape)
    pair = (y, chroma) if luma_first else (chroma, y)
    return np.stack(pair, axis=2).round().clip(0, 255).astype(np.uint8)


def encoded(bgr: np.ndarray, encoding: str) -> np.ndarray:
    if encoding.startswith("bayer_"):
        image = mosaic(bgr, encoding[6:10])
    elif encoding in GRAY:
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    elif encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        image = luma_and_chroma(bgr, luma_first=encoding in ("yuv422_yuy2", "yuyv"))
    else:
        code = COLOURS.get(encoding.rstrip("168") if encoding[0] != "8" else encoding)
        image = bgr if code is None else cv2.cvtColor(bgr, code)
    if encoding.endswith("16"):
        image = image.astype("<u2") * 257
    return image


def raw_frames(drive: SyntheticDrive, encoding: str) -> list[tuple[int, bytes]]:
    image = encoded(picture(), encoding)
    # Width and height are pixels; whatever a pixel consists of, its bytes.
    data = np.ascontiguousarray(image).view(np.uint8).reshape(24, 36, -1)
    return [(int(ns), image_cdr(int(ns), data, encoding)) for ns in camera_stamps(drive)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticDrive, list[Sample]]:
    folder = tmp_path_factory.mktemp("plain")
    drive = drive_course(BEND)
    return drive, build(write_bag(folder / "bag", drive), folder / "dataset")


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "jpeg", "png"])
def test_every_encoding_in_both_storages(
    tmp_path: Path, plain: tuple[SyntheticDrive, list[Sample]], storage: str, encoding: str
) -> None:
    drive, expected = plain
    if encoding in ENCODINGS:
        frames, camera = raw_frames(drive, encoding), CAMERA_IMAGE
    else:
        data = cv2.imencode(f".{encoding}", picture())[1].tobytes()
        frames = [(int(ns), compressed_cdr(int(ns), data)) for ns in camera_stamps(drive)]
        camera = CAMERA_JPEG
    bag = write_bag(
        tmp_path / "first" / "bag", drive, frames=frames, topics=(camera, ODOMETRY, VELOCITY_STATUS, AWSIM_STATUS)
    )
    bag = rewrite(bag, tmp_path / "bag", storage, names=NAMES)
    samples = build(bag, tmp_path / "dataset", **TOPICS)
    assert samples == expected and len(samples) > 40
    for name in samples[0].frames:
        assert (tmp_path / "dataset" / name).read_bytes()[:3] == b"\xff\xd8\xff"
        image = cv2.imread(str(tmp_path / "dataset" / name), cv2.IMREAD_COLOR).astype(int)
        wanted = picture()
        if encoding in GRAY:
            wanted = np.repeat(cv2.cvtColor(wanted, cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2)
        for column in (4, 18, 32):
            assert np.abs(image[12, column] - wanted[12, column]).max() < 24, (encoding, column)


@pytest.mark.parametrize(("storage", "mode"), [("MCAP", "FILE"), ("SQLITE3", "FILE"), ("SQLITE3", "MESSAGE")])
def test_zstd_bags_as_the_challenge_records_them(
    tmp_path: Path, plain: tuple[SyntheticDrive, list[Sample]], storage: str, mode: str
) -> None:
    drive, expected = plain
    bag = rewrite(write_bag(tmp_path / "first" / "bag", drive), tmp_path / "bag", storage, mode)
    if mode == "FILE":
        (file,) = bag.glob("*.zstd")
        assert build(file, tmp_path / "of-the-file")
    assert build(bag, tmp_path / "dataset") == expected
    assert len(load_manifest(tmp_path / "dataset")["bags"][0]["sha256"]) == 64


POINT = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped")


@pytest.mark.parametrize("kind", POINT)
@pytest.mark.parametrize("rate", [1, 4])
def test_a_pose_topic_will_do_in_place_of_odometry(
    tmp_path: Path, plain: tuple[SyntheticDrive, list[Sample]], kind: str, rate: int
) -> None:
    """At 25 Hz, and at 6 Hz where the steps between poses are long and nothing tells the speed."""
    drive, expected = plain
    poses = Topic("/localization/pose", kind)
    types, extra = typestore().types, []
    for ns, (x, y, yaw) in list(zip(drive.stamps_ns.tolist(), drive.poses, strict=True))[::rate]:
        pose = types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](x=float(x), y=float(y), z=6.5),
            orientation=types["geometry_msgs/msg/Quaternion"](
                x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))
            ),
        )
        if kind.endswith("CovarianceStamped"):
            pose = types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
        stamp = types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="map")
        extra.append((poses.name, ns + 1_000_000, bytes(typestore().serialize_cdr(types[kind](header, pose), kind))))
    bag = write_bag(tmp_path / "bag", drive, topics=(CAMERA_JPEG, VELOCITY_STATUS, AWSIM_STATUS, poses), extra=extra)
    # The error of a bag without our odometry names the topic that would do.
    with pytest.raises(MonoError, match="--odometry-topic /localization/pose"):
        build(bag, tmp_path / "none")
    samples = build(bag, tmp_path / "dataset", odometry_topic=poses.name)
    assert len(samples) >= len(expected) - 1
    truth = {sample.stamp_ns: sample for sample in expected}
    off = np.array([np.abs(s.future_array() - truth[s.stamp_ns].future_array())[:, :2].max() for s in samples])
    # Where the synthetic curvature jumps, sparse poses leave a hundredth of a radian open: 0.3 m at the far end.
    assert off.max() < (1e-5 if rate == 1 else 0.5) and np.median(off) < 0.05
    same = [sample.curve.label == truth[sample.stamp_ns].curve.label for sample in samples]
    assert np.mean(same) > (0.999 if rate == 1 else 0.95)


def test_the_challenges_own_recording_is_told_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """record_data.bash of the Challenge takes camera and commands, no pose."""
    drive = drive_course(BEND)
    bag = rewrite(
        write_bag(
            tmp_path / "first" / "bag", drive, frames=raw_frames(drive, "bgr8"), topics=(CAMERA_IMAGE, CONTROL_CMD)
        ),
        tmp_path / "rosbag2_autoware",
        mode="FILE",
    )
    with pytest.raises(MonoError) as refused:
        main(["--bags", str(bag), "--out", str(tmp_path / "dataset")])
    said = str(refused.value)
    for part in (
        ODOMETRY.name, VELOCITY_STATUS.name, AWSIM_STATUS.name, "alpamayo-mono record", "record_data.bash", "GNSS",
        CAMERA_IMAGE.name, "nav_msgs/msg/Odometry",
    ):  # fmt: skip
        assert part in said
    assert not (tmp_path / "dataset").exists()


def test_wrong_names_are_answered_with_the_right_ones(tmp_path: Path) -> None:
    drive = drive_course(BEND)
    bag = rewrite(write_bag(tmp_path / "first" / "bag", drive), tmp_path / "bag", names=NAMES)
    with pytest.raises(MonoError, match="use --image-topic /cam/front"):
        build(bag, tmp_path / "a", odometry_topic="/ekf/odom")
    with pytest.raises(MonoError, match="use --odometry-topic /ekf/odom"):
        build(bag, tmp_path / "b", image_topic="/cam/front")
    with pytest.raises(MonoError, match="has the type nav_msgs/msg/Odometry"):
        build(bag, tmp_path / "c", image_topic="/ekf/odom", odometry_topic="/ekf/odom")
    with pytest.raises(MonoError, match="has the type sensor_msgs/msg/CompressedImage"):
        build(bag, tmp_path / "d", image_topic="/cam/front", odometry_topic="/cam/front")
    nothing = write_bag(tmp_path / "nothing", drive, topics=(CONTROL_CMD,))
    with pytest.raises(MonoError, match="it holds nothing"):
        build(nothing, tmp_path / "e")
