"""Damaged messages, lines and files: no traceback, no hang, everything before a break used, every frame counted.

A sample by seed of what benchmarks/fuzz_build.py does at length.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from mcap.reader import make_reader

from collector.bags.reader import open_bag
from collector.common.errors import MonoError
from collector.dataset.builder import build_dataset, main
from collector.dataset.config import BuildConfig
from collector.dataset.schema import load_manifest, read_samples
from collector.ros.images import UNDECODABLE
from collector.ros.topics import CAMERA_JPEG
from tests.helpers.building import build
from tests.helpers.damage import as_sqlite3, fuzz_file, fuzz_line, fuzz_messages
from tests.helpers.synthetic_bag import SECOND, drive_course, write_bag


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    mcap = write_bag(folder / "mcap", drive_course(((100, 0.0), (12, 0.12), (100, 0.0))))
    return {"mcap": mcap, "sqlite3": as_sqlite3(mcap, folder / "sqlite3")}


def test_damaged_messages_are_counted_by_reason() -> None:
    went: Counter[str] = Counter()
    for seed in range(4):
        went += fuzz_messages(seed, 250)
    assert went["frame: kept"] > 50 and went[f"frame: {UNDECODABLE}"] > 100
    assert went["pose: unreadable message"] > 20
    assert sum(went.values()) > 1000 and len(went) >= 8


def test_damaged_lines_are_refused_by_field(tmp_path: Path, sound: dict[str, Path]) -> None:
    _, _, out = build(tmp_path, sound["mcap"], stride=10)
    lines = (out / "metadata.jsonl").read_text().splitlines()
    draw = random.Random(0)
    went = Counter(fuzz_line(lines, draw, tmp_path) for _ in range(200))
    assert sum(went.values()) == 200 and went["refused: the line itself"] > 20
    assert len([reason for reason in went if reason.startswith("refused")]) >= 4 and went["accepted"]


def test_damaged_files_are_read_up_to_the_damage_or_refused() -> None:
    went: Counter[str] = Counter()
    for seed in range(60):
        went += fuzz_file(seed)
    refused = sum(count for reason, count in went.items() if reason.startswith("refused"))
    assert refused and went["broken off, the part before used"] and went["read to the end"]
    assert refused + went["broken off, the part before used"] + went["read to the end"] == 60


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_everything_before_a_break_is_used(
    tmp_path: Path, sound: dict[str, Path], storage: str, is_folder: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, samples, _ = build(tmp_path / "whole", sound[storage])
    assert not whole.breaks
    bag = shutil.copytree(sound[storage], tmp_path / "bag")
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 6 // 10])
    with open_bag(bag) as torn:
        stamps = [frame.stamp_ns for frame in torn.frames(CAMERA_JPEG.name) if frame is not None]
        assert torn.breaks_off and torn.counts[CAMERA_JPEG.name] == len(stamps)
    assert 0.4 * whole.seen < len(stamps) < 0.7 * whole.seen
    report, kept, out = build(tmp_path / "torn", bag if is_folder else file)
    assert report.seen == len(stamps) and len(report.breaks) == 1
    # All that a whole future is left for, the same as from the whole bag.
    assert [s.stamp_ns for s in kept] == [s.stamp_ns for s in samples][: len(kept)]
    assert kept[-1].stamp_ns > stamps[-1] - 6_700_000_000
    assert [s.future for s in kept] == [s.future for s in samples[: len(kept)]]
    assert load_manifest(out)["counts"]["breaks"].keys() == {bag.name if is_folder else file.stem}
    capsys.readouterr()
    main(["--bags", str(bag), "--out", str(tmp_path / "cli"), "--val-fraction", "0"])
    said = capsys.readouterr()
    assert "warning: the bag bag is not whole" in said.err and "bags that break off" in said.out


def test_a_recording_without_metadata_and_with_a_torn_last_file(tmp_path: Path, sound: dict[str, Path]) -> None:
    """What a power cut leaves of a recording split into files: the last one is torn, there is no metadata.yaml."""
    bag = tmp_path / "split"
    bag.mkdir()
    data = next(sound["mcap"].glob("*.mcap")).read_bytes()
    later = drive_course(((60, 0.0),))
    later = replace(later, stamps_ns=later.stamps_ns + 90 * SECOND)
    other = write_bag(tmp_path / "later", later)
    (bag / "split_9.mcap").write_bytes(data)
    whole = next(other.glob("*.mcap")).read_bytes()
    (bag / "split_10.mcap").write_bytes(whole[: len(whole) * 9 // 10])
    report, samples, _ = build(tmp_path, bag)
    only, _, _ = build(tmp_path / "only", sound["mcap"])
    assert report.seen > only.seen and report.kept > only.kept and "split_10.mcap" in report.breaks["split"]
    first = [s.stamp_ns for s in read_samples(tmp_path / "only/dataset-mcap")]
    assert [s.stamp_ns for s in samples][: only.kept] == first


def test_a_damaged_chunk_ends_the_reading_there(tmp_path: Path, sound: dict[str, Path]) -> None:
    bag = shutil.copytree(sound["mcap"], tmp_path / "bag")
    file = next(bag.glob("*.mcap"))
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None and len(summary.chunk_indexes) > 1
    last = max(summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset)
    data = bytearray(file.read_bytes())
    middle = last.chunk_start_offset + last.chunk_length // 2
    data[middle : middle + 64] = bytes(64)
    file.write_bytes(data)
    whole, _, _ = build(tmp_path / "whole", sound["mcap"])
    report, samples, _ = build(tmp_path, bag)
    assert samples and report.seen < whole.seen and "checksum" in report.breaks["bag"]


def test_a_bag_of_which_nothing_can_be_read(tmp_path: Path, sound: dict[str, Path]) -> None:
    for storage, suffix in (("mcap", ".mcap"), ("sqlite3", ".db3")):
        file = tmp_path / f"torn{suffix}"
        file.write_bytes(next(sound[storage].glob(f"*{suffix}")).read_bytes()[:1000])
        with pytest.raises(MonoError, match="no message can be read"):
            build_dataset(BuildConfig((file,), tmp_path / "out"), show_progress=False)
    assert not (tmp_path / "out").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MonoError, match="no message can be read"):
        build_dataset(BuildConfig((empty,), tmp_path / "out"), show_progress=False)
