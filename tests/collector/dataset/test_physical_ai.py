"""PhysicalAI-AV: the real package reads a small data set written here in its layout, and never goes online."""

# ruff: noqa: F811 - pytest finds fixtures by their names
from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("physical_ai_av")
av = pytest.importorskip("av")
pd = pytest.importorskip("pandas")
hub = pytest.importorskip("huggingface_hub")

import cv2  # noqa: E402

from closed_loop.cli import main as cli  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.balance import BALANCED  # noqa: E402
from collector.dataset.physical_ai import (  # noqa: E402
    NOT_DOWNLOADED,
    REPOSITORY,
    STRAIGHT,
    UNREADABLE,
    PhysicalAiConfig,
    build_physical_ai,
)
from collector.dataset.schema import load_manifest, read_samples  # noqa: E402
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim  # noqa: E402
from collector.ros.images import UNDECODABLE  # noqa: E402
from tests.helpers.physical_ai_data import CAMERA, FPS, LEFT, data, no_network, parquet  # noqa: E402, F401 - fixtures
from tests.helpers.synthetic_bag import drive_course  # noqa: E402


def test_curve_scenes_become_the_same_samples(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "dataset"
    report, left_out = build_physical_ai(PhysicalAiConfig(data, out, seed=4, val_fraction=0.3), show_progress=False)
    report.check_sum()
    assert list(left_out) == ["4e-torn"] and UNREADABLE in left_out["4e-torn"]
    samples = list(read_samples(out))
    assert report.kept == len(samples) > 100 and report.seen == sum(report.rejected.values()) + report.kept
    assert {sample.bag for sample in samples} == {"0a-left", "2c-right", "3d-left"}
    assert report.rejected[STRAIGHT] > 150 and "straight" not in report.labels
    # Splits go by clip.
    clips = {split: {s.bag for s in samples if s.split == split} for split in ("train", "val")}
    assert clips["val"] == set(load_manifest(out)["validation"]) & clips["val"] and clips["val"]
    assert clips["train"] and not clips["train"] & clips["val"]

    for sample in samples:
        side = sample.bag.split("-")[1]
        assert sample.curve.label == sample.claim.lateral == side
        assert (sample.future[-1][1] > 0.0) == (side == "left")  # y left, as in base_link
        assert check_claim(parse_claim(sample.reasoning), measure_motion(sample.future_array())).keep
        assert sample.speed_mps == pytest.approx(6.0, abs=1e-3) and sample.history[-1] == (0.0, 0.0, 0.0)
    # The pose is that at the picture's own time, and the picture is the one of that time.
    drive = drive_course(LEFT, 6.0)
    for sample in [s for s in samples if s.bag == "0a-left"][::7]:
        at = drive.stamps_ns[0] + 200_000_000 + sample.stamp_ns + np.array([0, 6_400_000_000])
        x, y, yaw = (np.interp(at, drive.stamps_ns, drive.poses[:, axis]) for axis in range(3))
        ahead = np.cos(yaw[0]) * (x[1] - x[0]) + np.sin(yaw[0]) * (y[1] - y[0])
        assert sample.future[-1][0] == pytest.approx(ahead, abs=1e-3)
        times = [int(Path(name).stem.rsplit("_", 1)[1]) for name in sample.frames]
        assert np.allclose(np.diff(times), 100_000_000, atol=2_000)
        for name, ns in zip(sample.frames, times, strict=True):
            number = round((ns - 40_000_000) * FPS / 1e9)
            assert abs(float(cv2.imread(str(out / name)).mean()) - (20 + number % 200)) < 3.0
    manifest = load_manifest(out)
    assert manifest["source"]["revision"] == "ab" * 20 and manifest["source"]["camera"] == CAMERA
    assert manifest["source"]["clips_left_out"] == left_out and manifest["counts"]["kept"] == report.kept


def test_training_clips_are_balanced_and_speak_japanese(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "level"
    config = PhysicalAiConfig(
        data, out, val_fraction=0.0, balance=True, balance_ratio=1.0, balance_rare_share=0.1, reasoning_language="ja"
    )
    report, _ = build_physical_ai(config, show_progress=False)
    report.check_sum()
    said = load_manifest(out)["balance"]
    samples = list(read_samples(out))
    assert max(said["train_before"].values()) > said["most_per_bin"] == max(said["train_after"].values())
    assert report.rejected[BALANCED] == sum(said["train_before"].values()) - len(samples) > 0
    needed = {name for sample in samples for name in sample.frames}
    assert {f"images/{path.name}" for path in (out / "images").iterdir()} == needed
    assert all("曲" in sample.reasoning or "カーブ" in sample.reasoning for sample in samples)


def test_named_clips_and_a_broken_video(tmp_path: Path, data: Path) -> None:
    clips = ("2c-right", "5f-cloud", "nobody")
    report, left_out = build_physical_ai(
        PhysicalAiConfig(data, tmp_path / "a", clips=clips, val_fraction=0.0, stride=2), show_progress=False
    )
    assert left_out == {"5f-cloud": NOT_DOWNLOADED, "nobody": NOT_DOWNLOADED} and report.kept > 20
    broken = tmp_path / "cache"
    for file in (entry for entry in data.rglob("*") if entry.is_file()):
        copy = broken / file.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    file = next(broken.rglob(f"{CAMERA}.chunk_0000.zip"))
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    torn, short = f"2c-right.{CAMERA}.mp4", f"0a-left.{CAMERA}.timestamps.parquet"
    members[torn] = members[torn][: len(members[torn]) // 2]
    # More stamps than the video has frames: the last ones cannot be decoded.
    stamps = pd.read_parquet(io.BytesIO(members[short]))["timestamp"].to_numpy()
    more = stamps[-1] + np.arange(1, 61) * 1_000_000 // FPS
    members[short] = parquet(pd.DataFrame({"timestamp": np.concatenate([stamps, more])}))
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    config = PhysicalAiConfig(broken, tmp_path / "b", clips=("0a-left", "2c-right"), val_fraction=0.0)
    report, left_out = build_physical_ai(config, show_progress=False)
    assert list(left_out) == ["2c-right"] and UNREADABLE in left_out["2c-right"]
    assert report.rejected[UNDECODABLE] >= 20 and report.labels["left"] > 30


def test_the_command_teaches(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["build-physical-ai", "--data", str(data), "--out", str(tmp_path / "out"), "--stride", "4"]) == 0
    printed = capsys.readouterr().out
    assert STRAIGHT in printed and "left out: 4e-torn" in printed and "frames seen" in printed
    assert cli(["build-physical-ai", "--data", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "accept the licence" in capsys.readouterr().err
    empty = tmp_path / "empty" / f"datasets--{REPOSITORY.replace('/', '--')}" / "snapshots" / "cd"
    empty.mkdir(parents=True)
    with pytest.raises(MonoError, match=r"features\.csv"):
        build_physical_ai(PhysicalAiConfig(tmp_path / "empty", tmp_path / "y"), show_progress=False)
