"""Why a frame becomes no sample: each reason, by a drive that gives it and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.dataset import extraction as cutting
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.extraction import NO_HISTORY
from collector.dataset.schema import load_manifest, read_samples
from collector.pose_tracks import tracks
from collector.ros.images import UNDECODABLE
from collector.ros.topics import CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS
from tests.helpers.building import HORIZON_NS, build
from tests.helpers.synthetic_bag import (
    SECOND,
    START_NS,
    SyntheticDrive,
    camera_stamps,
    compressed_cdr,
    drive_course,
    jpeg,
    odometry_cdr,
    velocity_cdr,
    write_bag,
)

DRIVE = drive_course(((120, 0.0),))
STAMPS = camera_stamps(DRIVE).tolist()
FRAMES = [(ns, compressed_cdr(ns, jpeg(number))) for number, ns in enumerate(STAMPS)]
# What the two ends of any recording cost.
ENDS = {tracks.HISTORY_CUT, tracks.HORIZON_CUT}


def with_poses(change: Callable[[np.ndarray], None]) -> dict[str, Any]:
    poses = DRIVE.poses.copy()
    change(poses)
    return {"drive": replace(DRIVE, poses=poses)}


def put_elsewhere(poses: np.ndarray) -> None:
    poses[300:, 1] += 30.0


def lose_poses(poses: np.ndarray) -> None:
    poses[300:310] = np.nan


def drive_backwards(poses: np.ndarray) -> None:
    # Nose the other way, same motion.
    poses[:, 2] = np.pi


def without_poses(first: int, last: int) -> dict[str, Any]:
    keep = np.ones(len(DRIVE.stamps_ns), bool)
    keep[first:last] = False
    return {"drive": SyntheticDrive(DRIVE.stamps_ns[keep], DRIVE.poses[keep], DRIVE.speeds_mps[keep])}


def with_frame(number: int, cdr: bytes) -> dict[str, Any]:
    return {"frames": [*FRAMES[:number], (FRAMES[number][0], cdr), *FRAMES[number + 1 :]]}


def standing() -> dict[str, Any]:
    # Long enough before and after that no other frame stands.
    speeds = np.where((np.arange(len(DRIVE.stamps_ns)) > 200) & (np.arange(len(DRIVE.stamps_ns)) < 320), 0.0, 5.0)
    poses = DRIVE.poses.copy()
    poses[:, 0] = np.cumsum(speeds) * 0.04
    return {"drive": SyntheticDrive(DRIVE.stamps_ns, poses, speeds)}


CASES: dict[str, dict[str, Any]] = {
    tracks.NO_POSE: {"frames": [*FRAMES, (STAMPS[-1] + SECOND, compressed_cdr(STAMPS[-1] + SECOND, jpeg(0)))]},
    tracks.GAP: without_poses(300, 310),
    tracks.CLOCK_BACK: with_frame(100, compressed_cdr(STAMPS[98], jpeg(100))),
    cutting.DUPLICATE: with_frame(100, compressed_cdr(STAMPS[99], jpeg(100))),
    UNDECODABLE: with_frame(100, compressed_cdr(STAMPS[100], jpeg(100)[:-40])),
    tracks.NON_FINITE: with_poses(lose_poses),
    tracks.TELEPORT: with_poses(put_elsewhere),
    cutting.REVERSE: with_poses(drive_backwards),
    cutting.STANDING: standing(),
    tracks.HORIZON_CUT: {"frames": [frame for frame in FRAMES if frame[0] > STAMPS[0] + 2 * SECOND]},
    tracks.HISTORY_CUT: {"frames": [frame for frame in FRAMES if frame[0] < STAMPS[-1] - 7 * SECOND]},
    NO_HISTORY: {"frames": [frame for frame in FRAMES if frame[0] != STAMPS[100]]},
}
# Here frames are missing from the histories of the next ones as well.
FRAME_MISSING = {tracks.CLOCK_BACK, cutting.DUPLICATE, UNDECODABLE, tracks.HORIZON_CUT}


@pytest.mark.parametrize("reason", CASES)
def test_each_reason_alone(tmp_path: Path, reason: str) -> None:
    bag = write_bag(tmp_path / "bag", **({"drive": DRIVE, "frames": FRAMES} | CASES[reason]))
    report, samples, _ = build(tmp_path, bag)
    others = ({NO_HISTORY} if reason in FRAME_MISSING else set()) | (set() if reason in ENDS else ENDS)
    assert reason in report.rejected and set(report.rejected) <= {reason} | others
    assert len(samples) == report.kept == report.seen - sum(report.rejected.values())
    if reason != cutting.REVERSE:
        assert len(samples) > 20


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
    first = [(CAMERA_JPEG.name, int(ns) + 2_000_000, compressed_cdr(int(ns), jpeg(n))) for n, ns in enumerate(stamps)]
    later = 60 * SECOND
    second = [(name, received + later, data) for name, received, data in first]
    elsewhere = np.array([500.0, 0.0, 0.0])
    for ns, pose, speed in zip(drive.stamps_ns.tolist(), drive.poses, drive.speeds_mps, strict=True):
        second.append((ODOMETRY.name, ns + later + 1_000_000, odometry_cdr(ns, pose + elsewhere, speed)))
        # Not the truth, so that it can be told from the first half's reports, which have the same stamps.
        second.append((VELOCITY_STATUS.name, ns + later + 1_500_000, velocity_cdr(ns, speed + 1.0)))
    bag = write_bag(tmp_path / "reset", drive, frames=[], extra=[*first, *second])
    report, samples, _ = build(tmp_path, bag)
    once, _, _ = build(tmp_path, write_bag(tmp_path / "once", drive))
    assert report.kept >= 2 * once.kept - 4 and report.rejected[tracks.CLOCK_BACK] >= 1
    assert len({sample.id for sample in samples}) == len({s.file_name for s in samples}) == len(samples)
    assert {("-2_" in sample.id, round(sample.speed_mps, 3)) for sample in samples} == {(False, 5.0), (True, 6.0)}


def test_frames_are_refused_for_their_own_reasons(tmp_path: Path) -> None:
    drive = drive_course(((120, 0.0),))
    frames = [(int(ns), compressed_cdr(int(ns), jpeg(n))) for n, ns in enumerate(camera_stamps(drive))]
    frames[50] = (frames[50][0], compressed_cdr(frames[50][0], b"not a picture"))
    frames[60] = (frames[60][0], compressed_cdr(frames[60][0], jpeg(60)[:-40]))  # breaks off
    frames[70] = (frames[70][0], b"\x00\x01\x00\x00mutated")
    frames[80] = (frames[80][0], compressed_cdr(frames[79][0], jpeg(80)))  # the stamp of the one before
    frames[90] = (frames[90][0], compressed_cdr(frames[88][0], jpeg(90)))  # an older stamp
    frames[100] = (frames[100][0], compressed_cdr(3, jpeg(0)))  # a stamp from another world: taken for a restart
    report, samples, _ = build(tmp_path, write_bag(tmp_path / "bad", drive, frames=frames))
    assert report.rejected[UNDECODABLE] == 3
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

    backwards, samples, _ = build(tmp_path, write_bag(tmp_path / "back", drive_course(((60, 0.0),), lambda _: -3.0)))
    assert set(backwards.rejected) >= {cutting.REVERSE} and not samples


def test_stride_counts_what_it_skips(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", DRIVE)
    every, samples, _ = build(tmp_path, bag)
    out = tmp_path / "third"
    third = build_dataset(BuildConfig((bag,), out, stride=3, val_fraction=0.0), show_progress=False)
    assert third.seen == every.seen
    assert third.rejected[cutting.NOT_SAMPLED] == every.seen - len(range(0, every.seen, 3))
    taken = {sample.stamp_ns for sample in read_samples(out)}
    assert taken < {sample.stamp_ns for sample in samples} and len(taken) == third.kept
