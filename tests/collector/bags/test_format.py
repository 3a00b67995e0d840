"""What we write without the mcap library and rosbags is what these write and read."""

from __future__ import annotations

import importlib
import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mcap import records as theirs
from mcap.data_stream import ReadDataStream, RecordBuilder
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from collector.bags import mcap_format as ours
from collector.bags.cdr import compressed_image
from collector.bags.definitions import FILE, _known, recorded_definitions
from collector.bags.mcap_summary import DataEnd, SummaryOffset
from collector.bags.mcap_writer import LIBRARY, PROFILE, McapWriter
from collector.bags.reader import typestore
from collector.bags.writer import BagWriter, qos_text
from collector.common.errors import MonoError
from collector.ros.topics import ALL_TOPICS, CAMERA_JPEG, VELOCITY_STATUS

TEXTS = {"one": "1", "zwei": "zwölf", "": ""}
RECORDS = [
    (ours.Header("ros2", "me"), theirs.Header("ros2", "me")),
    (ours.Footer(1, 2, 3), theirs.Footer(1, 2, 3)),
    (ours.Schema(7, "a/msg/B", "ros2msg", b"int32 x"), theirs.Schema(7, b"int32 x", "ros2msg", "a/msg/B")),
    (ours.Channel(3, 7, "/topic", "cdr", TEXTS), theirs.Channel(3, "/topic", "cdr", TEXTS, 7)),
    (ours.Chunk(1, 9, 4, 5, "zstd", b"data"), theirs.Chunk("zstd", b"data", 9, 1, 5, 4)),
    (ours.MessageIndex(3, [(1, 2), (3, 4)]), theirs.MessageIndex(3, [(1, 2), (3, 4)])),
    (
        ours.ChunkIndex(1, 9, 100, 50, {3: 150, 4: 190}, 80, "lz4", 20, 30),
        theirs.ChunkIndex(50, 100, "lz4", 20, 9, 80, {3: 150, 4: 190}, 1, 30),
    ),
    (ours.AttachmentIndex(1, 2, 3, 4, 5, "n", "m"), theirs.AttachmentIndex(1, 2, 3, 4, 5, "n", "m")),
    (ours.Statistics(5, 1, 2, 3, 4, 6, 7, 8, {3: 5}), theirs.Statistics(3, 2, {3: 5}, 6, 5, 8, 7, 4, 1)),
    (ours.Metadata("name", TEXTS), theirs.Metadata("name", TEXTS)),
    (ours.MetadataIndex(1, 2, "n"), theirs.MetadataIndex(1, 2, "n")),
    (SummaryOffset(3, 4, 5), theirs.SummaryOffset(3, 4, 5)),
    (DataEnd(6), theirs.DataEnd(6)),
]


@pytest.mark.parametrize(("mine", "other"), RECORDS, ids=lambda each: type(each).__name__)
def test_a_record_is_the_same_in_bytes_and_back(mine: ours.Content, other: theirs.McapRecord) -> None:
    builder = RecordBuilder()
    other.write(builder)
    data = bytes(builder.end())
    assert mine.to_bytes() == data
    body = data[ours.RECORD_HEAD.size :]
    assert type(mine).read(body) == mine
    assert type(other).read(ReadDataStream(io.BytesIO(body))) == other


def test_an_attachment_is_read() -> None:
    builder = RecordBuilder()
    theirs.Attachment(create_time=2, log_time=1, name="n", media_type="text/plain", data=b"hello").write(builder)
    found = ours.Attachment.read(bytes(builder.end())[ours.RECORD_HEAD.size :])
    assert found == ours.Attachment(1, 2, "n", "text/plain", b"hello")


def _drive(count: int) -> list[tuple[int, int, bytes]]:
    random = np.random.default_rng(3)
    return [(1 + k % 2, 1000 + int(random.integers(0, 50)) + k, random.bytes(1 + k % 300)) for k in range(count)]


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_file_is_what_the_mcap_library_writes(count: int) -> None:
    """Byte by byte up to the summary, which leaves out the groups that are empty."""
    theirs_file, ours_file = io.BytesIO(), io.BytesIO()
    writer = Writer(theirs_file, chunk_size=4096, compression=CompressionType.NONE)
    writer.start(PROFILE, LIBRARY)
    schema = writer.register_schema("a/msg/B", "ros2msg", b"int32 x")
    for topic in ("/one", "/two"):
        writer.register_channel(topic, "cdr", schema, {"q": topic})
    channels = [ours.Channel(k, 1, topic, "cdr", {"q": topic}) for k, topic in ((1, "/one"), (2, "/two"))]
    mine = McapWriter(ours_file, [ours.Schema(1, "a/msg/B", "ros2msg", b"int32 x")], channels, 4096)
    for number, (channel, time_ns, data) in enumerate(_drive(count)):
        writer.add_message(channel, time_ns, data, time_ns)
        mine.add_message(channel, time_ns, data)
        if number % 100 == 50:
            writer.flush()
            mine.flush()
    writer.finish()
    mine.finish()
    both = theirs_file.getvalue(), ours_file.getvalue()
    summaries = [make_reader(io.BytesIO(data), validate_crcs=True).get_summary() for data in both]
    assert vars(summaries[0]) == vars(summaries[1])
    ends = [data.rindex(DataEnd(0).to_bytes()) for data in both]
    assert ends[0] == ends[1] and both[0][: ends[0]] == both[1][: ends[0]]
    # Their reader checks every checksum, those of the footer and the chunks too.
    assert list(StreamReader(io.BytesIO(both[1]), validate_crcs=True, emit_chunks=True).records)


def test_a_message_index_that_breaks_off_is_refused() -> None:
    whole = ours.MessageIndex(3, [(1, 2), (3, 4)]).to_bytes()[ours.RECORD_HEAD.size :]
    for cut in range(1, len(whole)):
        with pytest.raises((ValueError, struct.error)):
            ours.MessageIndex.read(whole[:-cut])


def test_definitions_are_those_of_rosbags() -> None:
    assert _known() == recorded_definitions(), f"write {FILE.name} anew: python -m collector.bags.definitions"


def test_qos_is_written_as_rosbags_writes_it() -> None:
    if not hasattr(importlib.import_module("rosbags.interfaces"), "Qos"):
        pytest.skip("this rosbags has no names for them")
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
    from rosbags.rosbag2.metadata import dump_qos_v8

    forever, history, liveliness = QosTime(9223372036, 854775807), QosHistory.KEEP_LAST, QosLiveliness.AUTOMATIC
    for topic in ALL_TOPICS:
        reliability, durability = QosReliability[topic.reliability.upper()], QosDurability[topic.durability.upper()]
        qos = Qos(history, topic.depth, reliability, durability, forever, forever, liveliness, forever, False)
        assert qos_text(topic) == dump_qos_v8([qos])


@pytest.mark.parametrize(("frame_id", "stored_as"), [("camera", "bgr8; jpeg compressed bgr8"), ("", "x"), ("ab", "jp")])
@pytest.mark.parametrize("size", [0, 1, 1001])
def test_a_compressed_image_is_serialised_as_rosbags_does(frame_id: str, stored_as: str, size: int) -> None:
    types, data = typestore().types, np.random.default_rng(1).integers(0, 255, size, np.uint8)
    stamp = types["builtin_interfaces/msg/Time"](sec=12, nanosec=345)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)
    message = types[CAMERA_JPEG.type](header=header, format=stored_as, data=data)
    expected = typestore().serialize_cdr(message, CAMERA_JPEG.type)
    assert compressed_image(12_000_000_345, frame_id, stored_as, data.tobytes()) == expected


def test_a_type_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="no definition of no_msgs/msg/Thing"):
        BagWriter(tmp_path / "bag", [replace(VELOCITY_STATUS, type="no_msgs/msg/Thing")])
