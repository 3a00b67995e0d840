"""The messages of a sqlite3 bag file, with what its writer left beside it (``-wal``); nothing is written."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from collector.bags.bag_files import JOURNAL, WAL
from collector.bags.compression import LARGEST_BYTES
from collector.bags.mcap_messages import StoredMessage, TopicType
from collector.common.errors import MonoError
from collector.common.files import open_regular

_WAL_MAGICS = b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # zeroed, or the file empty, where nothing is to be undone


class SqliteMessages:
    """The messages of one .db3 file, by the same names as :class:`collector.bags.mcap_messages.McapMessages` has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.breaks: list[str] = []
        self.definitions: dict[str, tuple[str, str]] = {}
        self.counts: Counter[TopicType] = Counter()
        self.start_ns: int | None = None  # the first time of arrival, where that is known
        self._topics: dict[int, TopicType] = {}
        wal = path.with_name(path.name + WAL)
        try:
            self.has_wal = wal.stat().st_size > 0
        except OSError:
            self.has_wal = False
        if self.has_wal and not _begins_with(wal, _WAL_MAGICS):
            self._note(f"{wal.name} is no write-ahead log, and is not read")
            self.has_wal = False  # sqlite would delete it
        # A writer that died may have left locks: they are passed over. Without its log the file is taken as it is;
        # with it, the log's index is made in memory (an exclusive lock asks for that), not beside the file.
        options = "mode=ro&vfs=unix-none" if self.has_wal else "mode=ro&immutable=1"
        self._database = sqlite3.connect(f"file:{quote(bytes(path.resolve()))}?{options}", uri=True)
        self._is_sound = False
        self._is_sound = self._look()

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        """The messages of some topics in order of arrival; of a damaged file in order of writing, up to the damage."""
        chosen = [number for number, channel in self._topics.items() if channel.topic in topics]
        if not chosen:
            return
        # A row that claims more than any message has is not fetched.
        query = f"SELECT topic_id, timestamp, CASE WHEN length(data) <= {LARGEST_BYTES} THEN data END FROM messages"  # noqa: S608 - a number of ours
        try:
            if self._is_sound:
                marks = ",".join("?" * len(chosen))
                rows = self._database.execute(f"{query} WHERE topic_id IN ({marks}) ORDER BY timestamp", chosen)
            else:
                rows = self._database.execute(query)
            for number, received_ns, data in rows:
                if number in self._topics and isinstance(received_ns, int) and isinstance(data, bytes):
                    if number in chosen:
                        yield StoredMessage(self._topics[number], received_ns, data)
                else:
                    self._note(f"a row that is no message of at most {LARGEST_BYTES} bytes")
        except (sqlite3.Error, OverflowError) as error:
            self._note(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _note(self, why: str) -> None:
        if why not in self.breaks:
            self.breaks.append(why)

    def _look(self) -> bool:
        """Take topics and counts; False where the file is damaged."""
        execute = self._database.execute
        self._database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            execute("PRAGMA locking_mode=EXCLUSIVE")
            # Without this sqlite refuses a file that is shorter than its header says. Nothing is written.
            execute("PRAGMA writable_schema=ON")
            kinds = dict(execute("SELECT name, type FROM sqlite_master WHERE name IN ('topics', 'messages')"))
            if kinds != {"topics": "table", "messages": "table"}:
                self._note("it has no tables of topics and messages")
                return False
            for number, name, kind, encoding in execute("SELECT id, name, type, serialization_format FROM topics"):
                self._topics[number] = TopicType(str(name), str(kind), str(encoding))
            self.counts.update(dict.fromkeys(self._topics.values(), 0))
            tables = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "message_definitions" in tables:
                columns = "topic_type, encoding, encoded_message_definition"
                for kind, encoding, text in execute(f"SELECT {columns} FROM message_definitions"):  # noqa: S608
                    self.definitions[str(kind)] = str(encoding), str(text)
            for number, count in execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
                if number in self._topics:
                    self.counts[self._topics[number]] += count
                else:
                    self._note(f"{count} messages of a topic that it does not name ({number})")
            (self.start_ns,) = execute("SELECT min(timestamp) FROM messages").fetchone()
            self.start_ns = self.start_ns if isinstance(self.start_ns, int) else None
        except (sqlite3.Error, OverflowError) as error:
            self._note(f"{type(error).__name__}: {error}")
            self.counts = Counter(row.channel for row in self.messages({c.topic for c in self._topics.values()}))
            return False
        return True


def has_journal(path: Path) -> bool:
    """Whether a writer died in the middle of a write that is to be undone."""
    return _begins_with(path.with_name(path.name + JOURNAL), (_JOURNAL_MAGIC,))


def undone(path: Path, folder: Path) -> Path:
    """A copy of a database, made in a folder, without the write that its writer did not finish.

    Raises:
        OSError: no room.
    """
    for end in ("", JOURNAL):
        shutil.copy(path.with_name(path.name + end), folder / f"{path.name}{end}")
    held = folder / path.name
    with suppress(sqlite3.Error), closing(sqlite3.connect(held)) as database:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return held


def _begins_with(path: Path, magics: tuple[bytes, ...]) -> bool:
    try:
        with open_regular(path) as stream:
            return stream.read(8).startswith(magics)
    except (OSError, MonoError):  # absent, or no file
        return False
