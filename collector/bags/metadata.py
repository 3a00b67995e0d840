"""The ``metadata.yaml`` of a bag folder, in the version ROS 2 Humble reads: one file or several, topics with counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collector.common.files import write_atomically

METADATA_FILE = "metadata.yaml"
METADATA_VERSION = 8
# Room a recorder keeps for the index of a bag on a disk that runs full; gone from finished bags.
RESERVE_FILE = ".reserve"


@dataclass(frozen=True)
class StoredTopic:
    """A topic as a bag declares it.

    Attributes:
        name, type: of the topic.
        encoding: of its messages, ``"cdr"`` for ROS 2.
        qos: the offered QoS profiles as YAML text, empty where unknown.
        type_hash: the type's RIHS01 hash, empty where unknown.
    """

    name: str
    type: str
    encoding: str = "cdr"
    qos: str = ""
    type_hash: str = ""


@dataclass(frozen=True)
class StoredFile:
    """One finished file of a bag.

    Attributes:
        name: within the bag's folder.
        counts: messages per topic name.
        start_ns, end_ns: first and last time of arrival; 0 without messages.
    """

    name: str
    counts: Mapping[str, int]
    start_ns: int = 0
    end_ns: int = 0

    @property
    def messages(self) -> int:
        """Messages of all topics."""
        return sum(self.counts.values())


def write_metadata(folder: Path, files: Sequence[StoredFile], topics: Sequence[StoredTopic]) -> Path:
    """Write ``metadata.yaml``; readers take its presence as the sign of a finished bag.

    Args:
        folder: the bag.
        files: its files in the order in which they are to be read.
        topics: what they hold; a topic without messages is listed too.

    Returns:
        The file written.
    """
    held = [file for file in files if file.messages]
    start_ns = min((file.start_ns for file in held), default=0)
    end_ns = max((file.end_ns for file in held), default=0)
    information = {
        "version": METADATA_VERSION,
        "storage_identifier": "mcap",
        "duration": {"nanoseconds": end_ns - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": sum(file.messages for file in files),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": topic.encoding,
                    "offered_qos_profiles": topic.qos,
                    "type_description_hash": topic.type_hash,
                },
                "message_count": sum(file.counts.get(topic.name, 0) for file in files),
            }
            for topic in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name for file in files],
        "files": [_file_row(file) for file in files],
        "custom_data": None,
        "ros_distro": "humble",
    }
    path = folder / METADATA_FILE
    write_atomically(path, yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False))
    return path


def _file_row(file: StoredFile) -> dict[str, Any]:
    return {
        "path": file.name,
        "starting_time": {"nanoseconds_since_epoch": file.start_ns},
        "duration": {"nanoseconds": file.end_ns - file.start_ns},
        "message_count": file.messages,
    }
