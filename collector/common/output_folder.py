"""Output folders: one process at a time writes to one, and only what this program made is written over.

The lock is the kernel's, on the folder itself: nothing is left behind by a kill, and two names of one folder (links)
are one. What tells a folder as ours is the record in it, ``provenance.json`` of a run.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from collector.common.errors import MonoError
from collector.common.files import PART, path_error, paths_of, real_place
from collector.common.text_files import read_json

PROVENANCE_FILE = "provenance.json"
_OF_PROVENANCE = {"commit", "packages", "command"}
_LOCKS = Path("/proc/locks")
_NAMED = 5
_WORDS = 90  # letters of a command line that are shown


class OutputFolder:
    """A folder that this process writes to and no other; made if absent, and unmade if nothing was put there.

    Use it as a context manager. On a file system without locks it goes on without one.

    Raises:
        MonoError: a file is there, it cannot be made or written, or another process writes to it.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = real_place(folder)
        if self.path.exists() and not self.path.is_dir():
            raise MonoError(f"{folder} is a file", "a folder to write to", "choose another --out")
        self.is_new = not self.path.exists()
        try:
            self._lock = self._locked()
        except OSError as error:
            raise path_error(error, folder) from error
        if not os.access(self.path, os.W_OK | os.X_OK, effective_ids=True):
            self.close()
            raise MonoError(f"{folder} cannot be written to", "a folder of yours", "choose another --out")

    def _locked(self) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = lock_folder(self.path)
            # Whoever held it until now may have put another folder under its name, or taken it away.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), self.path.stat()):
                    return handle
            os.close(handle)

    def entries(self) -> list[Path]:
        """What lies in it, without files that a kill left half written."""
        return sorted(entry for entry in self.path.iterdir() if entry.suffix != PART)

    def require_empty(self, expected: str = "an absent or empty folder", do: str = "choose another --out") -> None:
        """Refuse (MonoError) a folder that holds something."""
        if found := self.entries():
            raise MonoError(f"{self.path} is not empty: it holds {named(found)}", expected, do)

    def require_run(self, verb: str) -> None:
        """Refuse a folder that holds anything but a run of this verb.

        Raises:
            MonoError: a run of another verb, files of something else, or a record that cannot be read.
        """
        if not (self.path / PROVENANCE_FILE).is_file():
            self.require_empty(f"an absent or empty folder, or one of an earlier {verb}")
            return
        facts = read_json(self.path / PROVENANCE_FILE, "choose another --out", "the record of a run")
        made_by = str(facts.get("verb") or verb)  # versions before 0.3 did not write it
        if not facts.keys() >= _OF_PROVENANCE or made_by != verb:
            found = f"{self.path} holds a run of {made_by}" if made_by != verb else f"{self.path} holds something else"
            raise MonoError(found, f"an absent or empty folder, or one of an earlier {verb}", "choose another --out")

    def close(self) -> None:
        """Let others write to it."""
        os.close(self._lock)
        if self.is_new:
            with suppress(OSError):  # refuses unless it is empty
                self.path.rmdir()

    def __enter__(self) -> OutputFolder:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_folder(folder: Path, do: str = "wait for it to end, or choose another --out") -> int:
    """Open and lock a folder until the handle is closed, or the process ends (MonoError: another process has it)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = _holder(os.fstat(handle))
        os.close(handle)
        raise MonoError(f"{folder} is being written by {who}", "a folder that no other process uses", do) from None
    except OSError:
        pass  # a file system without locks
    return handle


def _holder(folder: os.stat_result) -> str:
    """The process that holds the lock of a folder, in words."""
    place = f"{os.major(folder.st_dev):02x}:{os.minor(folder.st_dev):02x}:{folder.st_ino}"
    with suppress(OSError, ValueError):
        for line in _LOCKS.read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and place in words:
                pid = int(words[words.index(place) - 1])
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {pid} ({' '.join(command.split())[:_WORDS]})"
    return "another process"


def named(paths: list[Path]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(path.name for path in paths[:_NAMED]) + more


def refuse_within(removed: list[Path], inputs: list[Path]) -> None:
    """Refuse (MonoError) to remove what a run is made from: an input that is, or lies in, one of these."""
    for path in inputs:
        place = real_place(path)
        for gone in map(real_place, removed):
            if place == gone or gone in place.parents:
                found = f"{path} lies in {gone}, which would be overwritten"
                raise MonoError(found, "inputs that stay", "choose another --out, or move the input away first")


def refuse_inside(config: _HasOut) -> None:
    """Refuse (MonoError) an output folder that is, or lies in, a folder that the run reads: it would change its input.

    The hash of the input would be another one then, and a killed run of it could not go on.
    """
    out = real_place(config.out)
    for path in paths_of(config, but=("out", "data")):  # that is a cache, and not hashed
        place = real_place(path)
        if place.is_dir() and (place == out or place in out.parents):
            found = (
                f"--out {config.out} lies in {path}, which is read" if place != out else f"--out {path} is read, too"
            )
            raise MonoError(found, "a folder outside of what is read", "choose another --out")


class _HasOut(Protocol):
    @property
    def out(self) -> Path: ...


Config = TypeVar("Config", bound=_HasOut)
Rest = ParamSpec("Rest")
Result = TypeVar("Result")
Work = Callable[Concatenate[Config, Rest], Result]


def alone_in_out(verb: str) -> Callable[[Work[Config, Rest, Result]], Work[Config, Rest, Result]]:
    """Make a verb's work hold ``config.out``, a run folder, from its first moment; only one of that verb is taken."""

    def wrap(work: Work[Config, Rest, Result]) -> Work[Config, Rest, Result]:
        @functools.wraps(work)
        def held(config: Config, /, *rest: Rest.args, **named_rest: Rest.kwargs) -> Result:
            if int(os.environ.get("RANK") or 0) > 0:
                return work(config, *rest, **named_rest)  # under torchrun the first process holds it for all
            refuse_inside(config)
            with OutputFolder(config.out) as out:
                out.require_run(verb)
                return work(config, *rest, **named_rest)

        return held

    return wrap
