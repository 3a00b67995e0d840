"""Bags to datasets: every frame accounted for, nothing that contradicts itself kept."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from collector.bags.reader import typestore
from collector.common.errors import MonoError
from collector.dataset import extraction as cutting
from collector.dataset.builder import build_dataset, main
from collector.dataset.config import BuildConfig
from collector.dataset.schema import Sample, SchemaError, load_manifest, read_samples
from collector.pose_tracks import tracks
from collector.pose_tracks.tracks import TrackConfig
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim
from collector.ros.images import UNKNOWN_ENCODING
from collector.ros.topics import AWSIM_STATUS, CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS
from tests.helpers.building import HORIZON_NS, build
from tests.helpers.synthetic_bag import camera_stamps, drive_course, image_cdr, picture_of, write_bag


@pytest.fixture(scope="module")
def course_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "course", drive_course())


def swap_sides(text: str) -> str:
    return re.sub("left|right", lambda m: {"left": "right", "right": "left"}[m.group()], text)


def test_a_clean_drive_becomes_agreeing_samples(tmp_path: Path, course_bag: Path) -> None:
    drive = drive_course()
    report, samples, out = build(tmp_path, course_bag)
    stamps = camera_stamps(drive)
    usable = (stamps >= drive.stamps_ns[0] + 1_500_000_000) & (stamps <= drive.stamps_ns[-1] - HORIZON_NS)
    assert report.seen == len(stamps) and report.kept == len(samples) == int(usable.sum())
    assert set(report.rejected) == {tracks.HISTORY_CUT, tracks.HORIZON_CUT}
    assert {"straight", "left", "right", "s"} == set(report.labels)
    for sample in samples:
        motion = measure_motion(sample.future_array())
        assert check_claim(parse_claim(sample.reasoning), motion).keep
        assert (sample.claim.lateral, sample.curve.label) == (motion.lateral, motion.curve.label)
        assert sample.history[-1] == (0.0, 0.0, 0.0)
        assert sample.speed_mps == pytest.approx(5.0, abs=1e-6) and sample.lap == 1
        # 9.52 Hz frames: the older three lie within the tolerance of 10 Hz.
        times = [int(Path(name).stem.rsplit("_", 1)[1]) for name in sample.frames]
        assert sample.frames[-1] == sample.file_name and times[-1] == sample.stamp_ns
        assert np.allclose(np.diff(times), 105_000_000)
        assert all((out / name).is_file() for name in sample.frames)


def test_history_and_future_are_the_drive_itself(tmp_path: Path, course_bag: Path) -> None:
    """Against the exact course: the poses at the frame's stamp, not at its arrival, and not of the nearest message."""
    drive = drive_course()
    _, samples, _ = build(tmp_path, course_bag)
    for sample in samples[::10]:
        times = sample.stamp_ns + np.arange(1, 65) * 100_000_000
        x, y = (np.interp(times, drive.stamps_ns, drive.poses[:, axis]) for axis in (0, 1))
        here = [np.interp(sample.stamp_ns, drive.stamps_ns, drive.poses[:, axis]) for axis in range(3)]
        dx, dy, cos, sin = x - here[0], y - here[1], np.cos(here[2]), np.sin(here[2])
        expected = np.stack([cos * dx + sin * dy, cos * dy - sin * dx], axis=1)
        assert np.allclose(sample.future_array()[:, :2], expected, atol=2e-6)


def test_stored_images_are_the_bags_own_bytes(tmp_path: Path, course_bag: Path) -> None:
    _, samples, out = build(tmp_path, course_bag)
    stamps = camera_stamps(drive_course())
    for sample in samples[::25]:
        number = int(np.flatnonzero(stamps == sample.stamp_ns)[0])
        assert (out / sample.file_name).read_bytes() == picture_of(drive_course(), number)


def test_mirrored_and_moved_drives(tmp_path: Path) -> None:
    """The same recording in a mirror gives the mirrored dataset; elsewhere on the map, the same one."""
    drive = drive_course()
    folders = {}
    for kind, changed in {
        "plain": drive,
        "mirror": drive.mirrored(),
        "moved": drive.moved(89630.0, 43130.0, 2.1),
    }.items():
        bag = write_bag(tmp_path / kind / "drive", changed)
        folders[kind] = build(tmp_path / kind, bag)[1]
    swap = {"left": "right", "right": "left", "straight": "straight", "s": "s"}
    assert len(folders["plain"]) == len(folders["mirror"]) == len(folders["moved"]) > 100
    for plain, mirror, moved in zip(*folders.values(), strict=True):
        assert np.array_equal(mirror.future_array(), plain.future_array() * [1, -1, -1])
        assert np.array_equal(mirror.history_array(), plain.history_array() * [1, -1, -1])
        assert mirror.reasoning == swap_sides(plain.reasoning)
        assert mirror.curve.label == swap[plain.curve.label] and mirror.curve.turn_rad == -plain.curve.turn_rad
        assert moved.reasoning == plain.reasoning and moved.curve.label == plain.curve.label
        assert np.allclose(moved.future_array(), plain.future_array(), atol=2e-6)


def test_planted_contradictions_are_quarantined(tmp_path: Path, course_bag: Path) -> None:
    _, samples, _ = build(tmp_path, course_bag)
    texts, planted = tmp_path / "texts.jsonl", {"swapped": 0, "silent": 0, "opposite speed": 0, "true": 0}
    with texts.open("w") as lines:
        for number, sample in enumerate(samples):
            text, kind = sample.reasoning, "true"
            if number % 4 == 1 and sample.claim.lateral != "straight":
                text, kind = swap_sides(text), "swapped"
            elif number % 4 == 2 and sample.claim.lateral != "straight":
                text, kind = "Keep the speed.", "silent"
            elif number % 4 == 3:
                text, kind = re.sub("(keep|hold) the speed", "slow down", text), "opposite speed"
            planted[kind] += 1
            lines.write(json.dumps({"stamp_ns": sample.stamp_ns, "reasoning": text, "bag": "course"}) + "\n")
    assert min(planted.values()) > 10
    out = tmp_path / "curated"
    report = build_dataset(BuildConfig((course_bag,), out, reasoning=texts, val_fraction=0.0), show_progress=False)
    assert report.kept == planted["true"] and report.quarantined == len(samples) - planted["true"]
    report.check_sum()
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == report.quarantined
    for line in lines:
        assert line["verdict"]["reason"] and line["claim"] and line["curve"]
        assert line["verdict"]["thresholds"]["curve_curvature_1pm"] == 0.04
        assert line["verdict"]["measured"]["lateral"] in ("left", "right", "straight")
        assert (out / line["file_name"]).is_file()
    # Frames without a text are counted, not guessed.
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"stamp_ns": samples[0].stamp_ns, "reasoning": samples[0].reasoning}) + "\n")
    sparse = build_dataset(
        BuildConfig((course_bag,), tmp_path / "sparse", reasoning=one, val_fraction=0.0), show_progress=False
    )
    assert sparse.kept == 1 and sparse.rejected[cutting.NO_TEXT] == len(samples) - 1


def test_raw_images_of_every_encoding(tmp_path: Path) -> None:
    drive = drive_course(((60, 0.0),))
    red = np.zeros((24, 32, 3), np.uint8)
    red[:, :16, 2] = 250
    kinds = {
        "bgr8": red,
        "rgb8": red[..., ::-1],
        "bgra8": cv2.cvtColor(red, cv2.COLOR_BGR2BGRA),
        "rgba8": cv2.cvtColor(red, cv2.COLOR_BGR2RGBA),
        "mono8": cv2.cvtColor(red, cv2.COLOR_BGR2GRAY)[..., None],
    }
    for encoding, image in kinds.items():
        frames = [(int(ns), image_cdr(int(ns), image, encoding)) for ns in camera_stamps(drive)]
        bag = write_bag(tmp_path / encoding, drive, frames=frames, topics=(CAMERA_IMAGE, ODOMETRY))
        report, samples, out = build(tmp_path, bag)
        assert report.kept == len(samples) > 20
        back = cv2.imread(str(out / samples[0].file_name))
        assert abs(int(back[12, 4, 2]) - (250 if encoding != "mono8" else 75)) < 8
        assert samples[0].speed_mps == pytest.approx(5.0, abs=1e-3)  # from the poses: no wheel speed here
    frames = [(int(ns), image_cdr(int(ns), red, "32FC1")) for ns in camera_stamps(drive)]
    report, _, _ = build(tmp_path, write_bag(tmp_path / "odd", drive, frames=frames, topics=(CAMERA_IMAGE, ODOMETRY)))
    assert report.rejected == {UNKNOWN_ENCODING: report.seen}


def test_sqlite3_bags_read_the_same(tmp_path: Path, course_bag: Path) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from collector.bags.reader import open_bag

    path = tmp_path / "course"
    with (
        rosbag2.Writer(path, version=8, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer,
        open_bag(course_bag) as bag,
    ):
        connections = {
            name: writer.add_connection(name, kind, typestore=typestore()) for name, kind in bag.topics.items()
        }
        for channel, received_ns, raw in bag._raw(list(bag.topics)):
            writer.write(connections[channel.topic], received_ns, raw)
    _, other, _ = build(tmp_path, path)
    _, here, _ = build(tmp_path / "mcap", course_bag)
    assert other == here and len(here) > 100


def test_noisy_poses_are_cleaned_and_the_manifest_says_so(tmp_path: Path) -> None:
    drive = drive_course()
    rng = np.random.default_rng(0)
    noisy = replace(drive, poses=drive.poses + rng.normal(0, [0.15, 0.15, 0.03], drive.poses.shape))
    bag = write_bag(tmp_path / "noisy", noisy)
    _, rough, out = build(tmp_path, bag, track=TrackConfig(smooth="never"))
    assert load_manifest(out)["pose_quality"]["noisy"]["smoothed"] is False
    _, smooth, out = build(tmp_path / "smooth", bag)
    said = load_manifest(out)["pose_quality"]["noisy"]
    assert said["smoothed"] and said["yaw"] == "motion" and said["speed_pieces"] == {"wheel": 1}
    assert said["noise"]["position_m"] == pytest.approx(0.15, rel=0.2)
    _, clean, out = build(tmp_path / "clean", write_bag(tmp_path / "clean" / "noisy", drive))
    said = load_manifest(out)["pose_quality"]["noisy"]
    assert not said["smoothed"] and said["yaw"] == "recorded" and said["noise"]["position_m"] < 0.001
    truth = {sample.stamp_ns: sample for sample in clean}

    def wrong(samples: list[Sample]) -> float:
        return float(np.mean([s.claim != truth[s.stamp_ns].claim for s in samples if s.stamp_ns in truth]))

    assert len(smooth) == len(clean)
    assert wrong(smooth) < 0.06 and wrong(smooth) < wrong(rough) / 4
    errors = [np.abs(s.future_array() - truth[s.stamp_ns].future_array())[:30, :2].mean() for s in smooth]
    assert np.mean(errors) < 0.1


def test_several_bags_and_a_manifest_that_says_how(tmp_path: Path, course_bag: Path) -> None:
    other = write_bag(tmp_path / "course", drive_course(((90, 0.0),)).moved(0.0, 50.0, 0.0))
    out = tmp_path / "both"
    report = build_dataset(BuildConfig((course_bag, other), out, val_fraction=0.0), show_progress=False)
    samples = list(read_samples(out))
    assert Counter(sample.bag for sample in samples).keys() == {"course", "course-2"}
    assert len({sample.file_name for sample in samples}) == len(samples)
    manifest = load_manifest(out)
    assert manifest["counts"]["kept"] == report.kept and manifest["counts"]["seen"] == report.seen
    assert manifest["config"]["thresholds"]["window_s"] == 3.0
    assert [len(bag["sha256"]) for bag in manifest["bags"]] == [64, 64]
    # The same build again is the same folder, byte for byte.
    again = tmp_path / "again"
    build_dataset(BuildConfig((course_bag, other), again, val_fraction=0.0), show_progress=False)
    for name in ("metadata.jsonl", "quarantine.jsonl", "manifest.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_missing_topics_and_full_folders_say_what_to_do(tmp_path: Path, course_bag: Path) -> None:
    drive = drive_course(((60, 0.0),))
    blind = write_bag(tmp_path / "blind", drive, topics=(ODOMETRY, VELOCITY_STATUS))
    lost = write_bag(tmp_path / "lost", drive, topics=(CAMERA_JPEG, AWSIM_STATUS))
    with pytest.raises(MonoError, match=re.escape(ODOMETRY.name)):
        build(tmp_path, lost)
    with pytest.raises(MonoError, match="camera"):
        build(tmp_path, blind)
    # Names that hold something else must neither break the build nor be passed over.
    for option, name in (("status_topic", ODOMETRY.name), ("velocity_topic", AWSIM_STATUS.name)):
        whole = write_bag(tmp_path / option, drive)
        with pytest.raises(MonoError, match="choose another --" + option.replace("_", "-")):
            build(tmp_path, whole, **{option: name})
    with pytest.raises(MonoError, match="no bag at"):
        build(tmp_path, tmp_path / "nowhere")
    for again in (lost, next(lost.glob("*.mcap"))):
        with pytest.raises(MonoError, match="named twice"):
            build_dataset(BuildConfig((lost, again), tmp_path / "twice"), show_progress=False)
    out = tmp_path / "full"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(MonoError, match="not empty"):
        build_dataset(BuildConfig((course_bag,), out), show_progress=False)
    build_dataset(BuildConfig((course_bag,), out, overwrite=True), show_progress=False)
    assert (out / "mine.txt").read_text() == "keep me" and (out / "manifest.json").is_file()
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"stamp_ns": 1, "reasoning": "x"}\n{"stamp_ns": "1", "reasoning": "x"}\n')
    with pytest.raises(SchemaError, match="line 2, field stamp_ns"):
        build(tmp_path, course_bag, reasoning=bad)


def test_command_line(tmp_path: Path, course_bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cli"
    assert main(["--bags", str(course_bag), "--out", str(out), "--stride", "5", "--thresholds.window-s", "2.0"]) == 0
    printed = capsys.readouterr().out
    assert "frames seen" in printed and cutting.NOT_SAMPLED in printed and "labels:" in printed
    assert load_manifest(out)["config"]["thresholds"]["window_s"] == 2.0
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and "--stride" in capsys.readouterr().out
