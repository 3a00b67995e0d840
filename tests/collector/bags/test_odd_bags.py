"""Unusual folders, files and names: what can be read is read, and the rest is called what it is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import lz4.frame
import pytest
import yaml

from collector.bags.reader import open_bag
from collector.bags.recover import recover_bag
from collector.common.errors import MonoError
from collector.dataset.builder import main
from collector.ros.topics import CAMERA_JPEG
from tests.helpers.building import build
from tests.helpers.damage import as_sqlite3
from tests.helpers.odd_bags import FRAMES, frame_numbers, other_writer, some_frames, told
from tests.helpers.synthetic_bag import SECOND, drive_course, write_bag


def test_a_folder_without_a_known_suffix_is_read_by_its_bytes(bag: Path) -> None:
    (bag / "bag_0.mcap").rename(bag / "RECORDING.MCAP")
    assert frame_numbers(bag) == list(range(FRAMES))
    assert recover_bag(bag)[0].was_finished


FOREIGN = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zip": lambda data: b"PK\x03\x04" + data}


@pytest.mark.parametrize("program", FOREIGN)
def test_what_another_program_compressed_is_called_that(bag: Path, program: str) -> None:
    file = bag / "bag_0.mcap"
    packed = file.with_name(f"bag_0.mcap.{program}")
    packed.write_bytes(FOREIGN[program](file.read_bytes()))
    file.unlink()
    for place in (bag, packed):
        with pytest.raises(MonoError, match=f"compressed by {program}, which is not read"), open_bag(place):
            pass


def test_lz4_files_are_read_also_where_they_break_off(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive_course(((20, 0.0),)), frames=some_frames(0, 400))
    file = bag / "bag_0.mcap"
    packed = lz4.frame.compress(file.read_bytes(), block_size=lz4.frame.BLOCKSIZE_MAX64KB)
    file.unlink()
    (bag / "bag_0.mcap.lz4").write_bytes(packed)
    assert frame_numbers(bag) == list(range(400))
    (bag / "bag_0.mcap.lz4").write_bytes(packed[: len(packed) // 3])
    assert 100 < len(frame_numbers(bag)) < 400 and "breaks off" in told(bag)


def test_an_empty_file_is_called_empty(tmp_path: Path, sound: Path, bag: Path) -> None:
    (bag / "bag_1.mcap").touch()
    assert frame_numbers(bag) == list(range(FRAMES)) and "bag_1.mcap: it is empty" in told(bag)
    sqlite = as_sqlite3(sound, tmp_path / "s" / "bag")
    (sqlite / "bag_1.db3").touch()
    assert len(frame_numbers(sqlite)) == FRAMES and told(sqlite).count("bag_1.db3:") == 1
    sqlite3.connect(sqlite / "bag_1.db3").execute("CREATE TABLE other (a)").connection.close()
    assert len(frame_numbers(sqlite)) == FRAMES and told(sqlite).count("bag_1.db3:") == 1
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a_0.mcap").touch()
    with pytest.raises(MonoError, match=r"a_0\.mcap: it is empty"), open_bag(tmp_path / "only"):
        pass


def test_a_summary_without_its_channels_is_not_believed(tmp_path: Path) -> None:
    """Repeating channels and types in the summary is optional, and so is every other part."""
    for number in range(16):
        options = ("repeat_channels", "repeat_schemas", "use_statistics", "use_summary_offsets")
        settings = {name: bool(number >> k & 1) for k, name in enumerate(options)}
        bag = tmp_path / f"bag{number}"
        bag.mkdir()
        other_writer(bag / "bag_0.mcap", settings)
        assert frame_numbers(bag) == list(range(FRAMES)), settings
        before = (bag / "bag_0.mcap").read_bytes()
        recover_bag(bag)
        information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        (topic,) = information["topics_with_message_count"]
        assert topic["message_count"] == FRAMES and topic["topic_metadata"]["type"] == CAMERA_JPEG.type
        assert (bag / "bag_0.mcap").read_bytes() == before


def test_two_bags_in_one_folder_are_read_in_the_order_of_time(tmp_path: Path, bag: Path) -> None:
    later = replace(drive_course(((80, 0.0),)), stamps_ns=drive_course(((80, 0.0),)).stamps_ns + 1000 * SECOND)
    other = write_bag(tmp_path / "a_later", later)
    sound_frames = write_bag(tmp_path / "first", drive_course(((80, 0.0),)).moved(0.0, 3.0, 0.0))
    shutil.copy(next(other.glob("*.mcap")), sound_frames / "a_later_0.mcap")  # its name comes first
    report, samples, _ = build(tmp_path, sound_frames)
    _, expected, _ = build(tmp_path / "alone", other)
    assert len(samples) > 1.9 * len(expected) and not report.rejected["no pose"]
    assert report.notes == ["first: metadata.yaml does not name a_later_0.mcap; read all the same"]


def write_half(database_path: Path) -> None:
    """Change a database as a writer does that dies before it commits."""
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size=5');"
        "c.execute('BEGIN'); c.execute('DELETE FROM messages WHERE id % 3 = 0');"
        "c.execute('UPDATE messages SET topic_id = 1'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(database_path)], check=False)


def test_a_write_that_was_not_finished_is_undone_in_a_copy(tmp_path: Path, sound: Path) -> None:
    bag = as_sqlite3(sound, tmp_path / "s" / "bag")
    (database,) = bag.glob("*.db3")
    whole = database.read_bytes()
    write_half(database)
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    assert f"{database.name}-journal" in before and before[database.name] != whole
    assert frame_numbers(bag) == list(range(FRAMES))
    assert "never finished is undone, in a copy" in told(bag) and "not part of the recording" not in told(bag)
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before


def test_a_journal_or_a_log_that_holds_nothing_costs_nothing(tmp_path: Path, sound: Path) -> None:
    bag = as_sqlite3(sound, tmp_path / "s" / "bag")
    (database,) = bag.glob("*.db3")
    for journal in (b"", bytes(512)):
        database.with_name(database.name + "-journal").write_bytes(journal)
        assert len(frame_numbers(bag)) == FRAMES and told(bag) == ""
    database.with_name(database.name + "-wal").write_bytes(b"no log at all" * 100)
    assert len(frame_numbers(bag)) == FRAMES and "-wal is no write-ahead log, and is not read" in told(bag)


def test_messages_of_no_topic_are_counted(tmp_path: Path, sound: Path) -> None:
    bag = as_sqlite3(sound, tmp_path / "s" / "bag")
    with closing(sqlite3.connect(next(bag.glob("*.db3")))) as database:
        database.execute("UPDATE messages SET topic_id = 99 WHERE id % 10 = 0")
        (count,) = database.execute("SELECT count(*) FROM messages WHERE topic_id = 99").fetchone()
        database.commit()
    assert len(frame_numbers(bag)) < FRAMES
    assert f"{count} messages of a topic that it does not name (99)" in told(bag)


def test_metadata_that_is_no_text_is_told_with_the_reason(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = bag / "metadata.yaml"
    text = place.read_text()
    long = text + "#" + "x" * 300_000 + "\n"
    place.write_text(long)  # many files and topics
    assert told(bag) == "" and recover_bag(bag) and place.read_text() == long
    place.unlink()
    for make, why in (
        (lambda: os.mkfifo(place), "is a pipe"),
        (lambda: place.symlink_to(bag / "gone"), "No such file"),
        (lambda: place.write_bytes("名前: x".encode("cp932")), "not UTF-8"),
        (lambda: place.write_text("a: &a [*a]"), "aliases written out"),
    ):
        make()
        assert frame_numbers(bag) == list(range(FRAMES)) and why in told(bag)
        place.unlink()


def test_names_that_are_no_utf8_or_look_like_an_address(tmp_path: Path, sound: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/bad \xff %41?#"))
    for number, source in enumerate((sound, as_sqlite3(sound, tmp_path / "s" / "bag"))):
        bag = Path(f"{odd}{number}")
        shutil.copytree(source, bag)
        for file in [*bag.glob("*.mcap"), *bag.glob("*.db3")]:
            file.rename(file.with_name(os.fsdecode(b"\xfe%20?#_0") + file.suffix))
        assert sorted(frame_numbers(bag)) == list(range(FRAMES))
        out = str(tmp_path / f"out{number}")
        with pytest.raises(MonoError, match="is not UTF-8"):
            main(["--bags", str(bag), "--out", out])
        plain = bag.rename(tmp_path / f"plain{number}")
        with pytest.raises(MonoError, match="none of the"):
            main(["--bags", str(plain), "--out", out])
