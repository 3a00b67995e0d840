"""A bag is what its files hold: whatever lies beside them, and however they were compressed or left behind."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from rosbags.highlevel import AnyReader

from collector.bags.reader import open_bag
from collector.bags.recover import main as recover
from collector.bags.recover import recover_bag
from collector.common.errors import MonoError
from collector.ros.topics import CAMERA_JPEG
from tests.helpers.bag_readings import counts_by_others
from tests.helpers.building import build
from tests.helpers.damage import as_sqlite3
from tests.helpers.odd_bags import FRAMES, frame_numbers, other_writer, some_frames, told
from tests.helpers.synthetic_bag import drive_course, write_bag


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        values = yaml.safe_load((folder / "metadata.yaml").read_text())
        change(values["rosbag2_bagfile_information"])
        (folder / "metadata.yaml").write_text(yaml.safe_dump(values))

    return edited


def blank_qos(information: dict) -> None:
    for topic in information["topics_with_message_count"]:
        topic["topic_metadata"]["offered_qos_profiles"] = ""


def other_types(information: dict) -> None:
    for topic in information["topics_with_message_count"]:
        topic["topic_metadata"]["type"] = "std_msgs/msg/String"


# What may stand in metadata.yaml, none of which may cost a frame.
LIES = {
    "blank QoS": edit(blank_qos),
    "no topics": edit(lambda i: i.update(topics_with_message_count=[])),
    "other types": edit(other_types),
    "no messages": edit(lambda i: i.update(message_count=0)),
    "message compression": edit(lambda i: i.update(compression_mode="MESSAGE", compression_format="zstd")),
    "file compression": edit(lambda i: i.update(compression_mode="FILE", compression_format="zstd")),
    "other storage": edit(lambda i: i.update(storage_identifier="sqlite3")),
    "a version to come": edit(lambda i: i.update(version=99)),
    "a file that is gone": edit(lambda i: i.update(relative_file_paths=["gone_0.mcap"])),
    "no file": edit(lambda i: i.update(relative_file_paths=[])),
    "half of it": lambda folder: (folder / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  vers"),
    "a list": lambda folder: (folder / "metadata.yaml").write_text("- 1\n"),
    "no text": lambda folder: (folder / "metadata.yaml").write_bytes(b"\xff\xfe\x00"),
    "nothing": lambda folder: (folder / "metadata.yaml").unlink(),
}


@pytest.mark.parametrize("lie", LIES)
def test_metadata_decides_nothing(bag: Path, lie: str) -> None:
    LIES[lie](bag)
    assert frame_numbers(bag) == list(range(FRAMES))


def test_what_metadata_says_wrongly_is_told(bag: Path) -> None:
    assert told(bag) == ""
    LIES["a file that is gone"](bag)
    assert "names gone_0.mcap, which the folder does not hold" in told(bag)
    assert "does not name bag_0.mcap" in told(bag)
    LIES["half of it"](bag)
    assert "metadata.yaml cannot be read" in told(bag)
    LIES["nothing"](bag)
    assert f"alpamayo-mono recover {bag}" in told(bag)


def test_every_file_of_a_folder_is_read_or_named(bag: Path) -> None:
    for name in ("notes.txt", "bag_0.mcap.bak", "bag_0.mcap.torn", ".hidden", "recording_report.json"):
        (bag / name).write_text("x")
    (bag / "older").mkdir()
    said = told(bag)
    assert "not read: bag_0.mcap.bak, notes.txt, older/" in said and "torn" not in said and "hidden" not in said


def pack(path: Path) -> Path:
    packed = path.with_name(path.name + ".zstd")
    packed.write_bytes(zstandard.compress(path.read_bytes()))
    path.unlink()
    return packed


def split_bag(folder: Path, parts: int = 3) -> Path:
    """A recording in several files; each holds a third of the frames."""
    folder.mkdir()
    for part in range(parts):
        frames = some_frames(part * 20, 20)
        one = write_bag(folder.parent / f"part{part}", drive_course(((20, 0.0),)), frames=frames, topics=(CAMERA_JPEG,))
        shutil.move(next(one.glob("*.mcap")), folder / f"bag_{part + 8}.mcap")  # bag_10 comes after bag_9
    return folder


def test_a_killed_recording_in_compressed_files_is_read_and_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = split_bag(tmp_path / "bag")
    packed = [pack(bag / f"bag_{part}.mcap") for part in (8, 9)]
    last = bag / "bag_10.mcap"
    last.write_bytes(last.read_bytes()[:-400])  # its index is missing
    assert frame_numbers(bag) == list(range(60))
    before = [path.read_bytes() for path in packed]
    assert recover([str(bag)]) == 0 and "60 messages readable" in capsys.readouterr().out
    assert [path.read_bytes() for path in packed] == before
    information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert information["relative_file_paths"] == ["bag_8.mcap.zstd", "bag_9.mcap.zstd", "bag_10.mcap.zstd"]
    with AnyReader([bag]) as others:
        assert sum(1 for _ in others.messages()) == 60
    # The plain file still lies there, as it does after `ros2 bag play` of such a bag: not twice the frames.
    assert last.exists() and frame_numbers(bag) == list(range(60)) and told(bag) == ""
    assert all(repair.was_finished for repair in recover_bag(bag))


def test_a_compressed_file_that_breaks_off_is_used_and_named(tmp_path: Path) -> None:
    bag = split_bag(tmp_path / "bag")
    first = pack(bag / "bag_8.mcap")
    first.write_bytes(first.read_bytes()[:-200])
    numbers = frame_numbers(bag)
    assert numbers[-40:] == list(range(20, 60)) and "bag_8.mcap" in told(bag)
    repairs = recover_bag(bag)
    assert [bool(repair.left_out) for repair in repairs] == [True, False, False]
    # Whole again where its plain twin is.
    one = write_bag(tmp_path / "again", drive_course(((20, 0.0),)), frames=some_frames(0, 20), topics=(CAMERA_JPEG,))
    shutil.copy(next(one.glob("*.mcap")), bag / "bag_8.mcap")
    assert frame_numbers(bag) == list(range(60))


def test_the_whole_of_two_twins_is_read(tmp_path: Path) -> None:
    bag = split_bag(tmp_path / "bag", 1)
    plain = (bag / "bag_8.mcap").read_bytes()
    pack(bag / "bag_8.mcap")
    (bag / "bag_8.mcap").write_bytes(plain[: len(plain) // 2])  # decompressing was interrupted
    assert frame_numbers(bag) == list(range(20))


def test_messages_compressed_one_by_one_are_read_without_metadata(tmp_path: Path) -> None:
    frames = [(ns, zstandard.compress(cdr)) for ns, cdr in some_frames()]
    bag = write_bag(tmp_path / "bag", drive_course(((20, 0.0),)), frames=frames, topics=(CAMERA_JPEG,))
    for damage in ("as written", "no metadata", "torn"):
        if damage != "as written":
            (bag / "metadata.yaml").unlink()
        if damage == "torn":
            file = bag / "bag_0.mcap"
            file.write_bytes(file.read_bytes()[:-500])
        assert frame_numbers(bag) == list(range(FRAMES))
        recover_bag(bag)
        information = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        assert (information["compression_mode"], information["compression_format"]) == ("MESSAGE", "zstd")
        assert counts_by_others(bag) == {CAMERA_JPEG.name: FRAMES}


def test_a_write_ahead_log_is_read_and_left_as_it_was(tmp_path: Path, sound: Path) -> None:
    whole = as_sqlite3(sound, tmp_path / "sqlite" / "bag")
    live = tmp_path / "live.db3"
    database = sqlite3.connect(live)
    for line in ("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0"):
        database.execute(line)
    source = sqlite3.connect(next(whole.glob("*.db3")))
    for (table,) in source.execute("SELECT sql FROM sqlite_master WHERE name IN ('topics', 'messages')"):
        database.execute(table)
    for name, where in (("topics", "1"), ("messages", "id <= 40"), ("messages", "id > 40")):
        rows = source.execute(f"SELECT * FROM {name} WHERE {where}").fetchall()
        database.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(rows[0]))})", rows)
        database.commit()
        if where == "id <= 40":
            database.execute("PRAGMA wal_checkpoint(FULL)")
    bag = tmp_path / "killed"
    bag.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{live}{end}", bag / f"bag_0.db3{end}")
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    assert len(before["bag_0.db3-wal"]) > 20_000
    bag.chmod(0o500)
    try:
        assert sorted(frame_numbers(bag)) == list(range(FRAMES))
    finally:
        bag.chmod(0o700)
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before
    with pytest.raises(MonoError, match="build and calibrate read it as it is"):
        recover_bag(bag)


WRITERS = {
    "no statistics": {"use_statistics": False},
    "no summary": {"index_types": IndexType.NONE, "use_statistics": False, "use_summary_offsets": False,
                   "repeat_channels": False, "repeat_schemas": False},
    "no message index": {"index_types": IndexType.CHUNK},
    "no chunks": {"use_chunking": False},
    "no checksums": {"enable_crcs": False, "enable_data_crcs": False},
    "lz4": {"compression": CompressionType.LZ4},
    "zstd": {"compression": CompressionType.ZSTD},
    "small chunks": {"chunk_size": 500},
}  # fmt: skip


@pytest.mark.parametrize("settings", WRITERS)
def test_files_of_other_writers_are_finished_as_they_are(tmp_path: Path, settings: str) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    other_writer(bag / "bag_0.mcap", WRITERS[settings])
    assert frame_numbers(bag) == list(range(FRAMES))
    before = (bag / "bag_0.mcap").read_bytes()
    (repair,) = recover_bag(bag)
    assert repair.was_finished and repair.file.messages == FRAMES
    kept = yaml.safe_load((bag / "metadata.yaml").read_text())
    kept["rosbag2_bagfile_information"] |= {"ros_distro": "jazzy", "custom_data": {"driver": "kart 3"}}
    (bag / "metadata.yaml").write_text(yaml.safe_dump(kept))
    recover_bag(bag)
    assert yaml.safe_load((bag / "metadata.yaml").read_text()) == kept
    assert (bag / "bag_0.mcap").read_bytes() == before


def test_what_only_metadata_knows_survives_a_repair(bag: Path) -> None:
    edit(lambda i: i.update(ros_distro="jazzy", custom_data={"driver": "kart 3"}))(bag)
    file = bag / "bag_0.mcap"
    file.write_bytes(file.read_bytes()[:-300])
    old = (bag / "metadata.yaml").read_bytes()
    recover_bag(bag)
    now = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert now["ros_distro"] == "jazzy" and now["custom_data"] == {"driver": "kart 3"}
    assert (bag / "metadata.yaml.torn").read_bytes() == old


def test_an_index_that_promises_too_much_is_noticed(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    bag = tmp_path / "bag"
    bag.mkdir()
    file = bag / "bag_0.mcap"
    other_writer(file, {"compression": CompressionType.NONE})
    with file.open("rb") as stream:
        (chunk,) = make_reader(stream).get_summary().chunk_indexes
    data = bytearray(file.read_bytes())
    data[chunk.chunk_start_offset + 200] ^= 0xFF  # the only chunk: its checksum does not fit
    file.write_bytes(data)
    with pytest.raises(MonoError, match=r"not one can be read.*checksum"):
        frame_numbers(bag)


def test_messages_that_are_no_cdr_are_named(tmp_path: Path) -> None:
    file = tmp_path / "old.mcap"
    other_writer(file, {}, profile="ros1", encoding="ros1")
    with open_bag(file) as opened, pytest.raises(MonoError, match="serialised as ros1"):
        opened.image_topic()


def test_a_bag_of_ros_1_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "old.bag", tmp_path / "renamed.mcap", tmp_path / "folder" / "old.bag"):
        path.write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
    (tmp_path / "renamed").mkdir()
    shutil.copy(tmp_path / "renamed.mcap", tmp_path / "renamed" / "bag_0.mcap")
    for place in (tmp_path / "old.bag", tmp_path / "renamed.mcap", tmp_path / "folder", tmp_path / "renamed"):
        with pytest.raises(MonoError, match=r"is a bag of ROS 1.*rosbags-convert"), open_bag(place):
            pass


def test_names_tell_nothing_about_a_file(tmp_path: Path, sound: Path) -> None:
    sqlite = next(as_sqlite3(sound, tmp_path / "s" / "bag").glob("*.db3"))
    shutil.copy(sqlite, tmp_path / "x.mcap")
    shutil.copy(next(sound.glob("*.mcap")), tmp_path / "y.db3")
    shutil.copy(next(sound.glob("*.mcap")), tmp_path / "z")
    for name in ("x.mcap", "y.db3", "z"):
        assert frame_numbers(tmp_path / name) == list(range(FRAMES))


def test_a_folder_of_bags_names_them(tmp_path: Path, sound: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("lap1", "lap2"):
        shutil.copytree(sound, runs / name)
    shutil.copytree(sound, runs / "2026" / "lap3")
    with pytest.raises(MonoError) as refused, open_bag(runs):
        pass
    assert f"{runs / 'lap1'}, {runs / 'lap2'}, {runs / '2026' / 'lap3'}" in str(refused.value)
    with pytest.raises(MonoError, match="neither a file nor a folder"), open_bag("/dev/null"):
        pass


def test_the_manifest_of_a_sound_bag_says_nothing_new(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", drive_course(((80, 0.0),)))
    (bag / "notes.txt").write_text("x")
    report, _, out = build(tmp_path, bag)
    assert report.notes == ["bag: not part of the recording, not read: notes.txt"]
    assert "notes" not in json.loads((out / "manifest.json").read_text())["counts"]
    assert report.counts()["breaks"] == {}
