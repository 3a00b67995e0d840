"""The ``metadata.yaml`` of a bag folder, in the version ROS 2 Humble reads: one file or several, topics with counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from collector.common.files import write_atomically

METADATA_FILE = "metadata.yaml"
METADATA_VERSION = 8
# Room a recorder keeps for the index of a bag on a disk that runs full; gone from finished bags.
RESERVE_FILE = ".reserve"


@dataclass(frozen=True)
class StoredTopic:
    """A topic as a bag declares it; offered QoS profiles (YAML text) and RIHS01 hash are empty where unknown."""

    name: str
    type: str
    encoding: str = "cdr"
    qos: str = ""
    type_hash: str = ""


@dataclass(frozen=True)
class StoredFile:
    """One finished file of a bag: messages by topic name, first and last time of arrival (0 without messages)."""

    name: str
    counts: Mapping[str, int]
    start_ns: int = 0
    end_ns: int = 0

    @property
    def messages(self) -> int:
        """Messages of all topics."""
        return sum(self.counts.values())


def write_metadata(
    folder: Path,
    files: Sequence[StoredFile],
    topics: Sequence[StoredTopic],
    compression: str = "",
    kept: Mapping[str, object] | None = None,
) -> None:
    """Write ``metadata.yaml``, whose presence readers take as the sign of a finished bag; files in reading order.

    ``compression`` is ``"FILE"`` or ``"MESSAGE"`` of a bag with zstd; ``kept`` is what an earlier ``metadata.yaml``
    said that the files do not.
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
        "compression_format": "zstd" if compression else "",
        "compression_mode": compression,
        "relative_file_paths": [file.name for file in files],
        "files": [
            {
                "path": file.name,
                "starting_time": {"nanoseconds_since_epoch": file.start_ns},
                "duration": {"nanoseconds": file.end_ns - file.start_ns},
                "message_count": file.messages,
            }
            for file in files
        ],
        "custom_data": None,
        "ros_distro": "humble",
        **(kept or {}),
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
    write_atomically(folder / METADATA_FILE, text)
