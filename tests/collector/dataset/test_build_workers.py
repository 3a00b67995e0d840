"""Workers change nothing but the time; a dataset appears as a whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic_core import PydanticSerializationError

from collector.common.errors import MonoError
from collector.dataset import extraction
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.dataset.sample import Sample, written
from collector.dataset.schema import load_manifest, read_samples
from collector.ros import images
from collector.ros.topics import CAMERA_IMAGE, ODOMETRY
from tests.helpers.building import build
from tests.helpers.paths import ROOT
from tests.helpers.synthetic_bag import camera_stamps, compressed_cdr, drive_course, image_cdr, jpeg, write_bag

DRIVE = drive_course(((40, 0.0), (12, 0.12), (40, 0.0)))


def raw_bag(folder: Path, size: tuple[int, int] = (48, 64)) -> Path:
    """Raw frames, all different, with a few that cannot be used among them."""
    rng = np.random.default_rng(0)
    frames = [(int(ns), image_cdr(int(ns), rng.integers(0, 256, (*size, 3), np.uint8))) for ns in camera_stamps(DRIVE)]
    # Its size and its data agree, but no JPEG can be that wide.
    wide = rng.integers(0, 256, (1, 70_000, 3), np.uint8)
    frames[60] = (frames[60][0], image_cdr(frames[60][0], wide))
    frames[90] = (frames[90][0], frames[90][1][:50])
    return write_bag(folder, DRIVE, frames=frames, topics=(CAMERA_IMAGE, ODOMETRY))


def jpeg_bag(folder: Path) -> Path:
    stamps = camera_stamps(DRIVE).tolist()
    pictures = [jpeg(number)[: -40 if number % 50 == 49 else None] for number in range(len(stamps))]
    frames = [(ns, compressed_cdr(ns, picture)) for ns, picture in zip(stamps, pictures, strict=True)]
    return write_bag(folder, DRIVE.moved(0.0, 50.0, 0.0), frames=frames)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    made = (raw_bag(tmp_path / "raw"), jpeg_bag(tmp_path / "jpeg"))
    folders = {}
    for workers in (1, 2, 5):
        config = BuildConfig(made, tmp_path / str(workers), workers=workers, val_fraction=0.2)
        report = build_dataset(config, show_progress=False)
        folders[workers] = everything_in(config.out)
    assert report.kept > 100 and report.rejected["undecodable frame"] >= 4
    assert folders[1].keys() == folders[2].keys() == folders[5].keys() >= {"metadata.jsonl", "manifest.json"}
    assert folders[1] == folders[2] == folders[5]
    assert all(data[:3] == b"\xff\xd8\xff" for name, data in folders[1].items() if name.endswith(".jpg"))
    assert (tmp_path / "1/metadata.jsonl").read_bytes().count(b"\n") == report.kept
    with pytest.raises(MonoError, match="workers:=0"):
        BuildConfig(made, tmp_path / "none", workers=0)


def test_only_frames_that_a_sample_needs_are_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the real compressor: each stored image once, the others (stride, ends of the drive) never."""
    compressed = []
    real = images.encode_jpeg

    def counted(bgr: np.ndarray, quality: int) -> bytes:
        compressed.append(bgr.shape)
        return real(bgr, quality)

    monkeypatch.setattr(images, "encode_jpeg", counted)
    bag = raw_bag(tmp_path / "raw")
    for stride, most in ((1, 0.8), (10, 0.35)):
        compressed.clear()
        report, samples, out = build(tmp_path / str(stride), bag, stride=stride)
        stored = {name for sample in samples for name in sample.frames}
        assert len(stored) == len(list((out / "images").iterdir()))
        # With the broken frame, whatever else the samples that it spoils would have needed.
        assert len(stored) < len(compressed) <= len(stored) + 4
        assert 0 < len(stored) < most * report.seen


def test_frames_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last four, and the four of a waiting sample with one more per worker, however long the bag is."""
    alive: set[int] = set()
    most = 0

    class Watched(extraction.HeldFrame):
        def __init__(self, frame: images.RawFrame, quality: int) -> None:
            nonlocal most
            super().__init__(frame, quality)
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    monkeypatch.setattr("collector.dataset.extraction.HeldFrame", Watched)
    report, _, _ = build(tmp_path, raw_bag(tmp_path / "raw"), workers=3)
    assert report.seen > 100 and 4 <= most <= 4 + 4 + 3


def test_a_failed_build_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = jpeg_bag(tmp_path / "bag")
    out = tmp_path / "out"

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("collector.dataset.schema.DatasetWriter.write", broken)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(BuildConfig((bag,), out, val_fraction=0.0), show_progress=False)
        assert not out.exists()
    build_dataset(BuildConfig((bag,), out, val_fraction=0.0), show_progress=False)
    (out / "mine.txt").write_text("keep me")
    before = everything_in(out)
    with monkeypatch.context() as patched:
        patched.setattr("collector.dataset.schema.DatasetWriter.write", broken)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(BuildConfig((bag,), out, overwrite=True, stride=20, val_fraction=0.0), show_progress=False)
    assert everything_in(out) == before
    build_dataset(BuildConfig((bag,), out, overwrite=True, stride=20, val_fraction=0.0), show_progress=False)
    after = everything_in(out)
    assert after["mine.txt"] == b"keep me" and len(after) < len(before)
    assert {f for f in after if f.endswith(".jpg")} == {name for s in read_samples(out) for name in s.frames}


def test_a_full_disk_is_an_error_a_person_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = jpeg_bag(tmp_path / "bag")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MonoError, match="No space left on device"):
        build_dataset(BuildConfig((bag,), tmp_path / "out"), show_progress=False)
    assert not (tmp_path / "out").exists()


def test_interrupted_and_killed_builds(tmp_path: Path) -> None:
    """Real processes: Ctrl-C leaves nothing, kill -9 a hidden rest that the next build clears away."""
    bag = raw_bag(tmp_path / "raw", (720, 960))
    out, rest = tmp_path / "out", tmp_path / ".out.unfinished"
    command = [sys.executable, "-m", "closed_loop.cli", "build", "--bags", str(bag), "--out", str(out)]
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            # Tests started in the background of a script ignore Ctrl-C, and their children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no lock is taken
        )
        deadline = time.monotonic() + 60
        while len(list(rest.glob("new/images/*"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in said
        if sent == signal.SIGINT:
            assert f"{out} is as it was before" in said and not out.exists() and not rest.exists()
    assert rest.is_dir() and not list(out.iterdir())
    with pytest.raises(MonoError, match=r"no metadata\.jsonl"):
        read_samples(out)
    report = build_dataset(BuildConfig((bag,), out, val_fraction=0.0), show_progress=False)
    assert load_manifest(out)["counts"]["kept"] == report.kept > 0 and not rest.exists()
    image = cv2.imread(str(out / next(iter(read_samples(out))).file_name))
    assert image.shape == (720, 960, 3)


@pytest.mark.parametrize(
    ("why", "kind"), [("KeyboardInterrupt: ", KeyboardInterrupt), ("x", PydanticSerializationError)]
)
def test_ctrl_c_in_the_middle_of_a_line_stays_one(
    monkeypatch: pytest.MonkeyPatch, why: str, kind: type[BaseException]
) -> None:
    def failing(_: Sample) -> str:
        raise PydanticSerializationError(f"Error calling function `_without_absent`: {why}")

    monkeypatch.setattr(Sample, "model_dump_json", failing)
    with pytest.raises(kind):
        written(Sample.model_construct())
