"""The same drive never lands in both splits: its poses tell it, whatever its name, files, length and compression."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from collector.bags.reader import open_bag
from collector.bags.writer import BagWriter
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset
from collector.dataset.config import BuildConfig
from collector.ros.topics import RECORDED
from tests.helpers.damage import as_sqlite3
from tests.helpers.synthetic_bag import SECOND, drive_course, write_bag

LATER_NS = 1000 * SECOND


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("lap") / "lap1", drive_course(((40, 0.0), (12, 0.12), (60, 0.0))))


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


def test_other_drives_are_taken_together(tmp_path: Path, bag: Path) -> None:
    """The same course at other times, or at the same stamps elsewhere: a lap more, a second kart, a mirrored course."""
    drive = drive_course(((40, 0.0), (12, 0.12), (60, 0.0)))
    noise = np.random.default_rng(0).normal(0.0, 1e-6, drive.poses.shape)
    others = (
        write_bag(tmp_path / "later", replace(drive, stamps_ns=drive.stamps_ns + LATER_NS)),
        write_bag(tmp_path / "mirrored", drive.mirrored().moved(0.0, 3.0, 0.0)),
        write_bag(tmp_path / "again", replace(drive, poses=drive.poses + noise)),
    )
    report = build_dataset(BuildConfig((bag, *others), tmp_path / "out", val_fraction=0.1), show_progress=False)
    assert report.kept > 200 and report.splits["val"]


def test_karts_that_stand_at_the_same_place_are_no_copies(tmp_path: Path) -> None:
    """A simulator begins every run at the same stamp and place."""
    drive = drive_course(((60, 0.0),), lambda t_s: 0.0 if t_s < 5.0 else 4.0)
    other = drive_course(((60, 0.0),), lambda t_s: 0.0 if t_s < 5.0 else 4.4)
    bags = write_bag(tmp_path / "one", drive), write_bag(tmp_path / "two", other)
    assert build_dataset(BuildConfig(bags, tmp_path / "out"), show_progress=False).kept


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
