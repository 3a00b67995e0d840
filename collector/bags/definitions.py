"""Message types as a bag declares them: definition and hash, without a library that knows them.

``definitions.json`` holds what rosbags says of the types that the recorder writes; ``python -m
collector.bags.definitions`` writes it anew when a type is added, and a test compares the two.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.ros.families import both_names
from collector.ros.topics import ALL_TOPICS

FILE = Path(__file__).with_suffix(".json")


class Definition(NamedTuple):
    """Text of a type and of the types in it, in ROS's language, and the hash of version 1 of REP-2016."""

    text: str
    type_hash: str

    @property
    def begins_with_stamp(self) -> bool:
        """Whether a message's first bytes are its stamp: it begins with a Header or with a Time."""
        fields = [line for line in self.text.splitlines() if line and "=" not in line]
        return bool(fields) and fields[0].split()[0] in ("std_msgs/Header", "builtin_interfaces/Time")


def definition_of(name: str) -> Definition:
    """The definition of a message type ``"package/msg/Name"``; rosbags is asked for one that is not in the file.

    Raises:
        MonoError: nobody knows it.
    """
    known = _known()
    if name in known:
        return known[name]
    try:
        return _from_rosbags(name)
    except (ImportError, KeyError) as error:
        expected, do = "a type of ROS 2 Humble or of collector/msg", "add its .msg text to collector/msg/<package>/msg"
        raise MonoError(f"no definition of {name}", expected, do) from error


@lru_cache(maxsize=1)
def _known() -> dict[str, Definition]:
    held = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: Definition(*row) for name, row in held.items()}


def _from_rosbags(name: str) -> Definition:
    from collector.bags.reader import typestore

    store = typestore()
    if name not in store.fielddefs:
        raise KeyError(name)
    return Definition(store.generate_msgdef(name, ros_version=2)[0], store.hash_rihs01(name))


def recorded_definitions() -> dict[str, Definition]:
    """What rosbags says of every type of the interface, in both families."""
    names = sorted({name for topic in ALL_TOPICS for name in both_names(topic.type)})
    return {name: _from_rosbags(name) for name in names}


def main() -> int:
    """Write the file anew."""
    write_atomically(FILE, json.dumps(recorded_definitions(), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
