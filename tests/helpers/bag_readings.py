"""What stands in a written bag, as rosbags and Foxglove's mcap read it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from collector.bags.reader import open_bag
from collector.ros.topics import VELOCITY_STATUS


def counts_by_others(folder: Path) -> dict[str, int]:
    """Messages per topic as rosbags (folder) and Foxglove's mcap (files, by their index) both see them."""
    with AnyReader([folder]) as reader:
        seen = Counter(connection.topic for connection, _, _ in reader.messages())
        assert reader.message_count == sum(seen.values())
    by_mcap: Counter[str] = Counter()
    for name in yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"][
        "relative_file_paths"
    ]:
        with (folder / name).open("rb") as stream:
            reader = make_reader(stream, validate_crcs=True)
            summary = reader.get_summary()
            assert summary is not None and summary.statistics is not None
            rows = Counter(channel.topic for _, channel, _ in reader.iter_messages())
            assert summary.statistics.message_count == sum(rows.values())
            by_mcap += rows
    assert by_mcap == seen
    return dict(seen)


def speeds_in(folder: Path) -> list[float]:
    with open_bag(folder) as bag:
        return [message.longitudinal_velocity for _, message in bag.messages(VELOCITY_STATUS.name)]


def read_contents_end(path: Path) -> int:
    """Where the data section of a finished file ends."""
    with path.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    return max(c.chunk_start_offset + c.chunk_length + c.message_index_length for c in summary.chunk_indexes)
