"""The same drive never lands in both splits: poses and pictures tell it, whatever its name, files and compression."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from collector.bags.reader import open_bag
from collector.bags.writer import BagWriter
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.ros.topics import CAMERA_IMAGE, ODOMETRY, RECORDED
from tests.helpers.damage import as_sqlite3
from tests.helpers.synthetic_bag import (
    SECOND,
    SyntheticDrive,
    camera_stamps,
    compressed_cdr,
    drive_course,
    image_cdr,
    write_bag,
)

LATER_NS = 1000 * SECOND
DRIVE = drive_course(((40, 0.0), (12, 0.12), (60, 0.0)))
WIDTH, HEIGHT = 96, 64
Pictures = list[tuple[int, NDArray[np.uint8]]]


def ground(size: int = 700) -> NDArray[np.uint8]:
    """Blotches of colour, which look different everywhere."""
    blotches = np.random.default_rng(0).integers(0, 255, (size // 12, size // 12, 3), np.uint8)
    return np.asarray(cv2.resize(blotches, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def pictures(drive: SyntheticDrive, seed: int = 0) -> Pictures:
    """What a camera with some noise sees of the ground along a drive."""
    rng, seen = np.random.default_rng(seed), ground()
    found = []
    for ns in camera_stamps(drive).tolist():
        x_m, y_m, _ = drive.poses[np.argmin(np.abs(drive.stamps_ns - ns))]
        shift = np.array([[1.0, 0.0, -4.0 * x_m], [0.0, 1.0, -300.0 - 4.0 * y_m]])
        view = cv2.warpAffine(seen, shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_WRAP)
        noisy = view.astype(int) + rng.integers(-3, 4, view.shape)
        found.append((ns, np.clip(noisy, 0, 255).astype(np.uint8)))
    return found


def compressed_frames(
    views: Pictures, quality: int = 95, size: tuple[int, int] = (WIDTH, HEIGHT), later_ns: int = 0
) -> list[tuple[int, bytes]]:
    setting = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [
        (
            ns + later_ns,
            compressed_cdr(
                ns + later_ns,
                cv2.imencode(".jpg", cv2.resize(view, size, interpolation=cv2.INTER_AREA), setting)[1].tobytes(),
            ),
        )
        for ns, view in views
    ]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("lap") / "lap1", DRIVE, frames=compressed_frames(pictures(DRIVE)))


def rewritten(
    bag: Path, folder: Path, keep: Callable[[float], bool] = lambda _: True, later_ns: int = 0, split_ns: int = 0
) -> Path:
    """The bag's messages written again: a part of them by time, arriving later, in files of another length."""
    with open_bag(bag) as source:
        topics = [topic for topic in RECORDED if topic.name in source.topics]
        writer = BagWriter(folder, topics, split_ns=split_ns)
        rows = [(ns, channel.topic, data) for channel, ns, data in source._raw([topic.name for topic in topics])]
    first_ns = min(ns for ns, _, _ in rows)
    for ns, topic, data in sorted(rows):
        if keep((ns - first_ns) / SECOND):
            writer.write(topic, ns + later_ns, data)
    writer.close()
    return folder


def compressed(bag: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "other_0.mcap.zstd").write_bytes(zstandard.compress(next(bag.glob("*.mcap")).read_bytes()))
    return folder


COPIES: dict[str, Callable[[Path, Path], Path]] = {
    "a backup": shutil.copytree,
    "the bare file": lambda bag, to: Path(shutil.copy(next(bag.glob("*.mcap")), to.with_suffix(".mcap"))),
    "other storage": as_sqlite3,
    "compressed": compressed,
    "split otherwise": lambda bag, to: rewritten(bag, to, split_ns=3 * SECOND),
    "its second half": lambda bag, to: rewritten(bag, to, keep=lambda t_s: t_s > 11.0),
    "the middle": lambda bag, to: rewritten(bag, to, keep=lambda t_s: 5.0 < t_s < 16.0),
    "every other second": lambda bag, to: rewritten(bag, to, keep=lambda t_s: int(t_s) % 2 == 0),
    "played and recorded again": lambda bag, to: rewritten(bag, to, later_ns=LATER_NS),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_under_another_name_is_refused(tmp_path: Path, bag: Path, kind: str) -> None:
    other = COPIES[kind](bag, tmp_path / "other")
    for bags in ((bag, other), (other, bag)):
        with pytest.raises(MonoError, match="hold the same drive"):
            build_dataset(BuildConfig(bags, tmp_path / "out"), show_progress=False)
    assert not (tmp_path / "out").exists()
    build_dataset(BuildConfig((other,), tmp_path / "alone", val_fraction=0.0), show_progress=False)


REPOSED: dict[str, Callable[[Path, Path], Path]] = {}


def reposed(name: str, later_ns: int = 0, **changes: Any) -> None:
    """Another file of the same drive whose poses were computed anew, and more."""

    def make(_: Path, to: Path) -> Path:
        poses = DRIVE.poses + np.random.default_rng(1).normal(0.0, 0.02, DRIVE.poses.shape)
        drive = replace(DRIVE, poses=poses, stamps_ns=DRIVE.stamps_ns + later_ns)
        views = changes.get("only", lambda all_of_them: all_of_them)(pictures(DRIVE))
        if changes.get("raw"):
            frames = [(ns, image_cdr(ns, view)) for ns, view in views]
            return write_bag(to, drive, frames=frames, topics=(CAMERA_IMAGE, ODOMETRY))
        said = {key: value for key, value in changes.items() if key in ("quality", "size")}
        return write_bag(to, drive, frames=compressed_frames(views, later_ns=later_ns, **said))

    REPOSED[name] = make


reposed("other poses")
reposed("other poses and stamps", later_ns=77 * SECOND)
reposed("other poses, the second half", only=lambda views: views[len(views) // 2 :])
reposed("other poses, every third picture", only=lambda views: views[::3])
reposed("other poses, pictures compressed anew", quality=50)
reposed("other poses, pictures of half the size", quality=80, size=(WIDTH // 2, HEIGHT // 2))
reposed("other poses, raw pictures", raw=True)


@pytest.mark.parametrize("kind", REPOSED)
def test_a_copy_with_other_poses_is_known_by_its_pictures(tmp_path: Path, bag: Path, kind: str) -> None:
    other = REPOSED[kind](bag, tmp_path / "other")
    for bags in ((bag, other), (other, bag)):
        with pytest.raises(MonoError, match=r"hold the same drive: \d+ pictures"):
            build_dataset(BuildConfig(bags, tmp_path / "out"), show_progress=False)
    assert not (tmp_path / "out").exists()


def test_a_copy_with_other_poses_within_a_folder_is_refused(tmp_path: Path, bag: Path) -> None:
    other = REPOSED["other poses"](bag, tmp_path / "other")
    doubled = shutil.copytree(bag, tmp_path / "doubled")
    shutil.copy(next(other.glob("*.mcap")), doubled / "smoothed_0.mcap")
    with pytest.raises(MonoError, match=r"holds \d+ pictures twice, with the same stamps"):
        build_dataset(BuildConfig((doubled,), tmp_path / "out"), show_progress=False)


def test_a_camera_that_sends_each_picture_twice_is_no_copy(tmp_path: Path) -> None:
    frames = [each for frame in compressed_frames(pictures(DRIVE)) for each in (frame, frame)]
    one = write_bag(tmp_path / "one", DRIVE, frames=frames)
    later = replace(DRIVE.moved(0.0, 0.3, 0.0), stamps_ns=DRIVE.stamps_ns + LATER_NS)
    other = write_bag(tmp_path / "two", later, frames=compressed_frames(pictures(later, 2)))
    assert build_dataset(BuildConfig((one, other), tmp_path / "out"), show_progress=False).kept


def test_other_drives_are_taken_together(tmp_path: Path, bag: Path) -> None:
    """The same course at other times, or at the same stamps elsewhere: a lap more, a second kart, a mirrored course."""
    noise = np.random.default_rng(0).normal(0.0, 1e-6, DRIVE.poses.shape)
    others = {
        "later": replace(DRIVE, stamps_ns=DRIVE.stamps_ns + LATER_NS, poses=DRIVE.poses + noise),
        "mirrored": DRIVE.mirrored().moved(0.0, 3.0, 0.0),
        "beside it": DRIVE.moved(0.0, 0.3, 0.0),
    }
    bags = [
        write_bag(tmp_path / name, drive, frames=compressed_frames(pictures(drive, seed)))
        for seed, (name, drive) in enumerate(others.items(), start=1)
    ]
    report = build_dataset(BuildConfig((bag, *bags), tmp_path / "out", val_fraction=0.1), show_progress=False)
    assert report.kept > 200 and report.splits["val"]


def test_karts_that_stand_at_the_same_place_are_no_copies(tmp_path: Path) -> None:
    """A simulator begins every run at the same stamp and place."""
    drives = [drive_course(((60, 0.0),), lambda t_s, v=v: 0.0 if t_s < 5.0 else v) for v in (4.0, 4.4)]
    bags = [write_bag(tmp_path / f"{k}", d, frames=compressed_frames(pictures(d))) for k, d in enumerate(drives)]
    assert build_dataset(BuildConfig(tuple(bags), tmp_path / "out"), show_progress=False).kept


def test_a_copy_of_a_file_in_the_folder_is_refused(tmp_path: Path, bag: Path) -> None:
    doubled = shutil.copytree(bag, tmp_path / "doubled")
    file = next(doubled.glob("*.mcap"))
    shutil.copy(file, doubled / f"{file.stem} (copy).mcap")
    with pytest.raises(MonoError, match=r"holds \d+ poses twice"):
        build_dataset(BuildConfig((doubled,), tmp_path / "out"), show_progress=False)


def test_the_same_place_named_twice_is_still_refused_by_name(tmp_path: Path, bag: Path) -> None:
    (tmp_path / "link").symlink_to(bag)
    with pytest.raises(MonoError, match="is named twice"):
        build_dataset(BuildConfig((bag, tmp_path / "link"), tmp_path / "out"), show_progress=False)
