"""Training and validation stay apart: by lap or episode, drawn by seed, with a guard band of one horizon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.bags.reader import OdometryRow
from collector.dataset import extraction as cutting
from collector.dataset.schema import Sample
from collector.dataset.splits import Interval, choose_validation, intervals_of, split_of
from collector.pose_tracks.recording import LapCount, Recording
from collector.pose_tracks.tracks import build_track
from tests.helpers.building import HISTORY_NS, HORIZON_NS, build
from tests.helpers.synthetic_bag import (
    COURSE,
    SECOND,
    START_NS,
    SyntheticDrive,
    camera_stamps,
    compressed_cdr,
    drive_course,
    jpeg,
    write_bag,
)


def touched_ns(sample: Sample) -> list[int]:
    """Stamps of all that a sample is made of: its poses and its four images."""
    poses = sample.stamp_ns + np.arange(-15, 65) * 100_000_000
    images = [int(Path(name).stem.rsplit("_", 1)[1]) for name in sample.frames]
    assert len(images) == 4 and images[0] <= sample.stamp_ns - 240_000_000
    return [*poses.tolist(), *images]


def distance_ns(samples: list[Sample]) -> int:
    """The smallest distance in time between what training touches and what validation touches."""
    train, val = (
        np.unique([ns for sample in samples if sample.split == split for ns in touched_ns(sample)])
        for split in ("train", "val")
    )
    assert len(train) and len(val)
    after = np.searchsorted(val, train)
    assert not np.isin(train, val).any()
    before = np.abs(train - val[np.maximum(after - 1, 0)])
    return int(np.minimum(before, np.abs(val[np.minimum(after, len(val) - 1)] - train)).min())


def lap_of(t_s: float) -> int:
    return 1 + int(t_s // 25.0)


def test_the_split_is_by_lap_and_guarded(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "laps", drive_course(COURSE * 5), lap_at=lap_of)
    report, samples, _ = build(tmp_path, bag, val_fraction=0.2, seed=3)
    val = [s.stamp_ns for s in samples if s.split == "val"]
    assert report.rejected[cutting.GUARD] > 50
    assert distance_ns(samples) > HORIZON_NS
    assert {s.lap for s in samples} == {1, 2, 3, 4, 5} and len({s.lap for s in samples if s.split == "val"}) == 1
    assert 0.1 < len(val) / len(samples) < 0.4
    _, again, _ = build(tmp_path / "again", bag, val_fraction=0.2, seed=3, stride=3)
    assert {s.stamp_ns: s.split for s in again}.items() <= {s.stamp_ns: s.split for s in samples}.items()


def test_the_seed_draws_the_laps() -> None:
    laps = [Interval("bag", 0, 0, lap, lap * 30 * SECOND, (lap + 1) * 30 * SECOND) for lap in range(10)]
    drawn = {seed: choose_validation(laps, 0.2, seed) for seed in range(8)}
    assert all(len(intervals) == 2 and set(intervals) <= set(laps) for intervals in drawn.values())
    assert len(set(drawn.values())) > 3 and drawn[3] == choose_validation(laps, 0.2, 3)
    (part,) = choose_validation(laps[:1], 0.1, 0)
    assert part.length_ns == 3 * SECOND and laps[0].start_ns <= part.start_ns < part.end_ns <= laps[0].end_ns
    assert choose_validation(laps, 0.0, 0) == () == choose_validation([], 0.5, 0)
    assert split_of("bag", 0, part.start_ns - 2, [part], 1) == "train"
    assert split_of("bag", 0, part.start_ns - 1, [part], 1) is None
    assert split_of("bag", 1, part.start_ns, [part], 1) == split_of("other", 0, part.start_ns, [part], 1) == "train"


def test_a_short_recording_trains_rather_than_validates(tmp_path: Path) -> None:
    """The guard of a short run would eat all of it: then there is no validation, and a longer one has it at its end."""
    short = Interval("bag", 0, 0, 0, 0, 12 * SECOND)
    assert choose_validation([short], 0.2, 0, 14 * SECOND) == ()
    for seed in range(6):
        (part,) = choose_validation([replace(short, end_ns=20 * SECOND)], 0.2, seed, 14 * SECOND)
        stamps = range(0, 20 * SECOND, SECOND // 2)
        left = [ns for ns in stamps if split_of("bag", 0, ns, [part], 14 * SECOND) == "train"]
        assert left and part.length_ns == 4 * SECOND
    _, samples, _ = build(tmp_path, write_bag(tmp_path / "short", drive_course()), val_fraction=0.1)
    assert len(samples) > 50 and {sample.split for sample in samples} == {"train"}


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


def test_a_silence_of_the_poses_is_no_way_around_the_guard(tmp_path: Path) -> None:
    """The kart goes on where it was: what comes after the silence is as near as what came before."""
    drive = drive_course(COURSE * 4)
    keep = np.ones(len(drive.stamps_ns), bool)
    keep[1000:1010] = keep[1500:1510] = False
    gaps = SyntheticDrive(drive.stamps_ns[keep], drive.poses[keep], drive.speeds_mps[keep])
    frames = [(int(ns), compressed_cdr(int(ns), jpeg(0))) for ns in camera_stamps(drive)]
    bag = write_bag(tmp_path / "silent", gaps, frames=frames)
    # The piece between the silences is the shortest, and small enough to be drawn whole.
    report, samples, _ = build(tmp_path, bag, val_fraction=0.18, seed=1)
    assert report.rejected[cutting.GUARD] > 50
    assert distance_ns(samples) > HORIZON_NS


Layout = list[tuple[str, int, int]]
# How a piece begins, how long it is, and how often the lap counter rises within it.
PIECES: st.SearchStrategy[Layout] = st.lists(
    st.tuples(st.sampled_from(["silence", "teleport", "restart"]), st.integers(2, 600), st.integers(0, 3)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.floats(0.01, 0.9), st.integers(0, 1000))
def test_no_layout_brings_training_within_a_horizon_of_validation(layout: Layout, share: float, seed: int) -> None:
    """Over random pieces, laps, shares and seeds, for every moment at which a frame could come."""
    rows, laps = [], []
    stamp_ns, received_ns, x_m, lap = 50 * SECOND, 0, 0.0, 0
    for begins, tenths, lap_changes in layout:
        stamp_ns = 50 * SECOND if begins == "restart" else stamp_ns + (SECOND if begins == "silence" else 0)
        x_m += 100.0 if begins == "teleport" else 0.0
        for step in range(0, tenths + 1, 2):
            if lap_changes and step and step % (2 * (tenths // (2 * lap_changes) + 1)) == 0:
                lap += 1
            rows.append(OdometryRow(stamp_ns, received_ns, x_m, 0.0, 0.0, 5.0))
            laps.append((received_ns, lap))
            stamp_ns, received_ns, x_m = stamp_ns + SECOND // 5, received_ns + SECOND // 5, x_m + 1.0
    track = build_track(rows)
    counted = np.array(laps, np.int64)
    intervals = intervals_of(
        Recording("bag", track, LapCount(counted[:, 0], counted[:, 1]), {}), HISTORY_NS, HORIZON_NS
    )
    validation = choose_validation(intervals, share, seed)
    usable_ns = sum(max(0, interval.length_ns) for interval in intervals)
    assert bool(validation) == (usable_ns > 0)
    touched: dict[tuple[int, str], list[int]] = {}
    run = 0
    for index, piece in enumerate(track.segments):
        before = track.segments[max(0, index - 1)]
        run += before.epoch != piece.epoch or (index > 0 and piece.poses[0, 0] - before.poses[-1, 0] > 50.0)
        moments = range(int(piece.stamps_ns[0]) + HISTORY_NS, int(piece.stamps_ns[-1]) - HORIZON_NS + 1, SECOND // 10)
        for moment in moments:
            split = split_of("bag", track.run_at(index), moment, validation, cutting.GUARD_NS)
            if split is not None:
                touched.setdefault((run, split), []).append(moment)
    for run, split in touched:
        if split == "val" and (run, "train") in touched:
            apart = np.abs(np.subtract.outer(touched[run, "train"], touched[run, "val"])).min()
            # From the last pose of one to the first pose (or the oldest image, which is later) of the other.
            assert apart - HISTORY_NS - HORIZON_NS > HORIZON_NS
