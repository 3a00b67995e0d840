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

from collector import cutting, tracks
from collector.agreement import judge, measure_motion
from collector.bags import typestore
from collector.build import build_dataset, main
from collector.build_config import BuildConfig, BuildReport
from collector.claims import parse_claim
from collector.errors import MonoError
from collector.frame_memory import NO_HISTORY
from collector.samples import Sample, SchemaError, load_manifest, read_samples
from collector.splits import Stretch, choose_validation, split_of
from collector.stack import AWSIM_STATUS, CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS
from collector.tracks import TrackConfig
from tests.synthetic_bag import (
    COURSE,
    SECOND,
    START_NS,
    SyntheticDrive,
    camera_stamps,
    compressed_cdr,
    drive_course,
    image_cdr,
    jpeg,
    odometry_cdr,
    write_bag,
)

HORIZON_NS = 6_400_000_000


def build(tmp_path: Path, bag: Path, **settings: object) -> tuple[BuildReport, list[Sample], Path]:
    out = tmp_path / f"dataset-{bag.name}"
    config = BuildConfig(bags=(bag,), out=out, **({"val_fraction": 0.0} | settings))  # type: ignore[arg-type]
    report = build_dataset(config, show_progress=False)
    report.check_sum()
    return report, list(read_samples(out)), out


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
        assert judge(parse_claim(sample.reasoning), motion).keep
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
        assert (out / sample.file_name).read_bytes() == jpeg(number)


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
        assert (
            mirror.curve.label == swap[plain.curve.label] and mirror.curve.turn_rad == -plain.curve.turn_rad
        )
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
    report = build_dataset(
        BuildConfig((course_bag,), out, reasoning=texts, val_fraction=0.0), show_progress=False
    )
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


def test_a_teleport_is_never_crossed(tmp_path: Path) -> None:
    drive = drive_course()
    poses, half = drive.poses.copy(), len(drive.poses) // 2
    poses[half:, 1] += 30.0
    bag = write_bag(tmp_path / "jump", replace(drive, poses=poses))
    report, samples, _ = build(tmp_path, bag)
    jump_ns = int(drive.stamps_ns[half])
    for sample in samples:
        assert sample.stamp_ns + HORIZON_NS < jump_ns or sample.stamp_ns - 1_500_000_000 >= jump_ns
        assert np.linalg.norm(np.diff(sample.future_array()[:, :2], axis=0), axis=1).max() < 1.0
    # Future cut 6.4 s before, history cut 1.5 s after, at 9.52 Hz.
    assert report.rejected[tracks.TELEPORT] == pytest.approx((6.4 + 1.5) / 0.105, abs=2)


def test_gaps_non_finite_poses_and_clock_resets_are_cut_and_named(tmp_path: Path) -> None:
    drive = drive_course(((200, 0.0),))
    keep = np.ones(len(drive.stamps_ns), bool)
    keep[500:515] = False  # 0.6 s without odometry
    gap = SyntheticDrive(drive.stamps_ns[keep], drive.poses[keep], drive.speeds_mps[keep])
    frames = [(int(ns), compressed_cdr(int(ns), jpeg(0))) for ns in camera_stamps(drive)]
    report, samples, _ = build(tmp_path, write_bag(tmp_path / "gap", gap, frames=frames))
    assert report.rejected[tracks.GAP] == pytest.approx((6.4 + 0.6 + 1.5) / 0.105, abs=2) and samples

    poses = drive.poses.copy()
    poses[250] = np.nan  # a single one is bridged
    poses[500:515] = np.nan
    report, samples, _ = build(tmp_path, write_bag(tmp_path / "nan", replace(drive, poses=poses)))
    assert report.rejected[tracks.NON_FINITE] == pytest.approx((6.4 + 0.6 + 1.5) / 0.105, abs=2)
    assert load_manifest(tmp_path / "dataset-nan")["poses_left_out"] == {"nan": {tracks.NON_FINITE: 16}}
    around = START_NS + 250 * 40_000_000
    assert any(s.stamp_ns < around < s.stamp_ns + HORIZON_NS for s in samples)


def test_a_restarted_clock_begins_a_new_time(tmp_path: Path) -> None:
    """The simulator is reset: header stamps begin again, arrivals go on. Both halves give samples."""
    drive = drive_course(((80, 0.0), (12, 0.12), (20, 0.0)))
    stamps = camera_stamps(drive)
    first = [
        (CAMERA_JPEG.name, int(ns) + 2_000_000, compressed_cdr(int(ns), jpeg(n)))
        for n, ns in enumerate(stamps)
    ]
    later = 60 * SECOND
    second = [(name, received + later, data) for name, received, data in first]
    elsewhere = np.array([500.0, 0.0, 0.0])
    for ns, pose, speed in zip(drive.stamps_ns.tolist(), drive.poses, drive.speeds_mps):
        second.append((ODOMETRY.name, ns + later + 1_000_000, odometry_cdr(ns, pose + elsewhere, speed)))
    bag = write_bag(tmp_path / "reset", drive, frames=[], extra=[*first, *second])
    report, samples, _ = build(tmp_path, bag)
    once, _, _ = build(tmp_path, write_bag(tmp_path / "once", drive))
    assert report.kept >= 2 * once.kept - 4 and report.rejected[tracks.CLOCK_BACK] >= 1
    assert len({sample.id for sample in samples}) == len({s.file_name for s in samples}) == len(samples)


def test_frames_are_refused_for_their_own_reasons(tmp_path: Path) -> None:
    drive = drive_course(((120, 0.0),))
    frames = [(int(ns), compressed_cdr(int(ns), jpeg(n))) for n, ns in enumerate(camera_stamps(drive))]
    frames[50] = (frames[50][0], compressed_cdr(frames[50][0], b"not a picture"))
    frames[60] = (frames[60][0], compressed_cdr(frames[60][0], jpeg(60)[:-40]))  # breaks off
    frames[70] = (frames[70][0], b"\x00\x01\x00\x00mutated")
    frames[80] = (frames[80][0], compressed_cdr(frames[79][0], jpeg(80)))  # the stamp of the one before
    frames[90] = (frames[90][0], compressed_cdr(frames[88][0], jpeg(90)))  # an older stamp
    frames[100] = (
        frames[100][0],
        compressed_cdr(3, jpeg(0)),
    )  # a stamp from another world: taken for a restart
    report, samples, _ = build(tmp_path, write_bag(tmp_path / "bad", drive, frames=frames))
    assert report.rejected[cutting.UNDECODABLE] == 3
    assert report.rejected[cutting.DUPLICATE] == 1
    assert report.rejected[tracks.CLOCK_BACK] == 2
    # Each lost frame is missing from the histories of up to three later ones.
    assert 3 <= report.rejected[NO_HISTORY] <= 18
    assert frames[50][0] not in {sample.stamp_ns for sample in samples} and len(samples) > 80


def test_frames_before_and_after_all_poses_have_no_pose(tmp_path: Path) -> None:
    drive = drive_course(((80, 0.0),))
    stamps = [START_NS - 3 * SECOND, *camera_stamps(drive).tolist(), int(drive.stamps_ns[-1]) + SECOND]
    frames = [(ns, compressed_cdr(ns, jpeg(0))) for ns in stamps]
    report, _, _ = build(tmp_path, write_bag(tmp_path / "edges", drive, frames=frames))
    assert report.rejected[tracks.NO_POSE] == 2


def test_standing_still_and_reverse(tmp_path: Path) -> None:
    def speed(t_s: float) -> float:
        return 0.0 if t_s < 12.0 else min(5.0, 1.5 * (t_s - 12.0))

    report, samples, _ = build(tmp_path, write_bag(tmp_path / "wait", drive_course(((100, 0.0),), speed)))
    assert report.rejected[cutting.STANDING] > 70
    # The start itself is kept: a kart that never saw one could not pull away.
    starts = [sample for sample in samples if sample.speed_mps == 0.0]
    assert starts and all(sample.claim.longitudinal == "accelerate" for sample in starts)

    backwards, samples, _ = build(
        tmp_path, write_bag(tmp_path / "back", drive_course(((60, 0.0),), lambda _: -3.0))
    )
    assert set(backwards.rejected) >= {cutting.REVERSE} and not samples


def test_stride_counts_what_it_skips(tmp_path: Path, course_bag: Path) -> None:
    every, samples, _ = build(tmp_path, course_bag)
    out = tmp_path / "third"
    third = build_dataset(BuildConfig((course_bag,), out, stride=3, val_fraction=0.0), show_progress=False)
    assert third.seen == every.seen
    assert third.rejected[cutting.NOT_SAMPLED] == every.seen - len(range(0, every.seen, 3))
    taken = {sample.stamp_ns for sample in read_samples(out)}
    assert taken < {sample.stamp_ns for sample in samples} and len(taken) == third.kept


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
    frames = [(int(ns), image_cdr(int(ns), red, "yuv422")) for ns in camera_stamps(drive)]
    report, _, _ = build(
        tmp_path, write_bag(tmp_path / "odd", drive, frames=frames, topics=(CAMERA_IMAGE, ODOMETRY))
    )
    assert report.rejected == {cutting.UNDECODABLE: report.seen}


def test_sqlite3_bags_read_the_same(tmp_path: Path, course_bag: Path) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from collector.bags import open_bag

    path = tmp_path / "course"
    with (
        rosbag2.Writer(path, version=8, storage_plugin=rosbag2.StoragePlugin.SQLITE3) as writer,
        open_bag(course_bag) as bag,
    ):
        connections = {
            name: writer.add_connection(name, kind, typestore=typestore())
            for name, kind in bag.topics.items()
        }
        for name, received_ns, raw in bag._raw(list(bag.topics)):
            writer.write(connections[name], received_ns, raw)
    _, other, _ = build(tmp_path, path)
    _, here, _ = build(tmp_path / "mcap", course_bag)
    assert other == here and len(here) > 100


def lap_of(t_s: float) -> int:
    return 1 + int(t_s // 25.0)


def test_the_split_is_by_lap_and_guarded(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "laps", drive_course(COURSE * 5), lap_at=lap_of)
    report, samples, _ = build(tmp_path, bag, val_fraction=0.2, seed=3)
    train = np.array([s.stamp_ns for s in samples if s.split == "train"])
    val = np.array([s.stamp_ns for s in samples if s.split == "val"])
    assert len(val) and len(train) and report.rejected[cutting.GUARD] > 50
    assert np.abs(train[:, None] - val[None, :]).min() > HORIZON_NS
    assert {s.lap for s in samples} == {1, 2, 3, 4, 5} and len(
        {s.lap for s in samples if s.split == "val"}
    ) == 1
    assert 0.1 < len(val) / len(samples) < 0.4
    _, again, _ = build(tmp_path / "again", bag, val_fraction=0.2, seed=3, stride=3)
    assert {s.stamp_ns: s.split for s in again}.items() <= {s.stamp_ns: s.split for s in samples}.items()


def test_the_seed_draws_the_laps() -> None:
    laps = [Stretch("bag", 0, lap, lap * 30 * SECOND, (lap + 1) * 30 * SECOND) for lap in range(10)]
    drawn = {seed: choose_validation(laps, 0.2, seed) for seed in range(8)}
    assert all(len(stretches) == 2 and set(stretches) <= set(laps) for stretches in drawn.values())
    assert len(set(drawn.values())) > 3 and drawn[3] == choose_validation(laps, 0.2, 3)
    (part,) = choose_validation(laps[:1], 0.1, 0)
    assert part.length_ns == 3 * SECOND and laps[0].start_ns <= part.start_ns < part.end_ns <= laps[0].end_ns
    assert choose_validation(laps, 0.0, 0) == () == choose_validation([], 0.5, 0)
    assert split_of("bag", 0, part.start_ns - 2, [part], 1) == "train"
    assert split_of("bag", 0, part.start_ns - 1, [part], 1) is None
    assert (
        split_of("bag", 1, part.start_ns, [part], 1)
        == split_of("other", 0, part.start_ns, [part], 1)
        == "train"
    )


def test_episodes_split_whole_without_a_guard(tmp_path: Path) -> None:
    """A recording of short episodes, the kart put elsewhere between them: whole episodes are drawn."""
    drive = drive_course(((500, 0.0),))
    poses = drive.poses.copy()
    for number in range(1, 5):
        poses[number * 500 :, 1] += 40.0
    report, samples, _ = build(
        tmp_path, write_bag(tmp_path / "episodes", replace(drive, poses=poses)), val_fraction=0.2
    )
    val = [s.stamp_ns for s in samples if s.split == "val"]
    assert cutting.GUARD not in report.rejected
    assert len({(ns - START_NS) // (20 * SECOND) for ns in val}) == 1
    train = np.array([s.stamp_ns for s in samples if s.split == "train"])
    assert np.abs(train[:, None] - np.array(val)[None, :]).min() > HORIZON_NS


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
    other = write_bag(tmp_path / "course", drive_course(((90, 0.0),)))
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
    with pytest.raises(MonoError, match="no bag at"):
        build(tmp_path, tmp_path / "nowhere")
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(next(course_bag.glob("*.mcap")).read_bytes()[:20_000])
    with pytest.raises(MonoError, match=r"opened|breaks off"):
        build(tmp_path, torn)
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
    assert (
        main(["--bags", str(course_bag), "--out", str(out), "--stride", "5", "--thresholds.window-s", "2.0"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "frames seen" in printed and cutting.NOT_SAMPLED in printed and "labels:" in printed
    assert load_manifest(out)["config"]["thresholds"]["window_s"] == 2.0
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0 and "--stride" in capsys.readouterr().out


def test_damaged_bags_never_end_in_a_traceback(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive_course(((60, 0.05),)))
    file = next(bag.glob("*.mcap"))
    intact = file.read_bytes()
    outcomes = Counter()
    for seed in range(16):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(intact, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 4 ** rng.integers(0, 4))] = rng.integers(0, 256)
        file.write_bytes(damaged.tobytes())
        config = BuildConfig((bag,), tmp_path / "out", overwrite=True)
        try:
            build_dataset(config, show_progress=False).check_sum()
            outcomes["built"] += 1
        except MonoError:
            outcomes["refused"] += 1
    assert outcomes["built"] and outcomes["refused"]
