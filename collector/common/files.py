"""Where this project lies, files that are whole or absent, and look-ups that end in a sentence."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from collector.common.errors import MonoError

# The folder that holds the three packages: a checkout or site-packages.
PROJECT_ROOT = Path(__file__).resolve().parents[2]
PART = ".part"  # what a file is called until it is whole
# Settings that are ROS parameters and so hold a path as text.
PATH_TEXTS = (
    *("out", "log", "model", "adapter", "calibration", "vehicle", "simulated_vehicle"),
    *("policy_python", "policy_token_file", "token_file"),
)
NAME_BYTES = 255  # of a name in a folder, at most
_SHOWN = 200  # letters of a path in a sentence
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_CURES = {
    errno.EACCES: "ask its owner (ls -ld shows who that is) for the right, or name another place",
    errno.EPERM: "ask its owner (ls -ld shows who that is) for the right, or name another place",
    errno.ELOOP: "mend the link that leads back to itself, or name another place",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ENOSPC: "make room on that disk, or name another one",
    errno.EDQUOT: "make room in your quota, or name another disk",
    errno.EROFS: "name a place that is not read-only",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EEXIST: "name another place, or move away what is there",
}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it; a link stays a link."""
    place = _file_place(path)
    part = _part_of(place)
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(place)
    except BaseException:
        with suppress(OSError):
            part.unlink()  # it would take room on a disk that is full
        raise


def real_place(path: Path | str) -> Path:
    """The absolute path behind all links, whether or not something is there.

    Raises:
        MonoError: it cannot be looked up: a loop of links, a name too long, a folder that keeps us out; or its name is
            no text, which no record of a run could hold.
    """
    try:
        place = Path(os.path.realpath(path))
    except OSError as error:  # a working folder that was deleted
        raise path_error(error, Path(path)) from error
    except ValueError as error:  # a zero byte
        raise MonoError(f"the path {str(path)!r}: {error}", "the path of a file or folder", "correct it") from error
    try:
        place.stat()
    except OSError as error:
        if error.errno not in _ABSENT:
            raise path_error(error, path) from error
    if not os.fsencode(place).decode("utf-8", "ignore") == str(place):
        raise MonoError(
            f"the path {str(place)!a} is not UTF-8", "a name that is text", "rename it, or name another place"
        )
    return place


def path_error(error: OSError, path: Path | str | None = None) -> MonoError:
    """The sentence for a look-up, a reading or a writing that the system refused."""
    place = str(path if path is not None else error.filename or "")
    if len(place) > _SHOWN:
        place = f"{place[: _SHOWN // 2]}...{place[-_SHOWN // 2 :]}"
    found = f"{place or 'what this command reads and writes'}: {error.strerror or error}"
    cure = _CURES.get(error.errno or 0, "check the path")
    return MonoError(found, "a path that can be used", cure)


def empty_path(name: str) -> MonoError:
    """What to say about a path of no letters, as a variable that is not set gives: pathlib takes it for "."."""
    return MonoError(f"{name} is empty", "a path", "name one; . is the working folder")


def sentence_of(error: MonoError | OSError) -> str:
    """What a command says at its end; an OSError that a library raised without a number of the system is raised on."""
    if isinstance(error, MonoError):
        return str(error)
    if error.errno is None:
        raise error
    return str(path_error(error))


def check_paths(settings: object) -> None:
    """Look up every path among a command's settings before any work starts.

    Raises:
        MonoError: see :func:`real_place`; or what is there may not be read, which even a place of results must.
    """
    for path in paths_of(settings):
        place = real_place(path)
        rights = os.R_OK | (os.X_OK if place.is_dir() else 0)
        if place.exists() and not os.access(place, rights, effective_ids=True):
            raise path_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path)


def paths_of(value: object, but: Collection[str] = ()) -> Iterator[Path]:
    """Every path among a command's settings, without the fields ``but``."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from paths_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name not in but:
                held = getattr(value, field.name)
                yield from paths_of(Path(held) if held and _is_path_text(field.name, held) else held)


def _is_path_text(name: str, value: object) -> bool:
    return isinstance(value, str) and name in PATH_TEXTS


Settings = TypeVar("Settings")


def with_homes(value: Settings) -> Settings:
    """A command's settings with ``~`` replaced in every path: after ``out:=`` no shell does it.

    Raises:
        MonoError: there is no such home folder.
    """
    if isinstance(value, Path) and value.parts[:1] and value.parts[0].startswith("~"):
        return with_home(value)  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(with_homes(item) for item in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes: dict[str, object] = {}
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            new = str(with_homes(Path(held))) if held and _is_path_text(field.name, held) else with_homes(held)
            if field.init and new != held:
                changes[field.name] = new
        return dataclasses.replace(value, **changes) if changes else value
    return value


def with_home(path: Path | str) -> Path:
    """A path whose ``~`` is replaced (MonoError: no home folder, as for a user without a passwd entry and HOME)."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        do = "set HOME to a folder of yours, or XDG_CACHE_HOME for the cache alone"
        raise MonoError(f"no home folder to find {path} in", "a user with a home folder, or HOME set", do) from error


def check_file_place(path: Path) -> None:
    """Refuse before the work a file that could not be written after it; makes the folder it goes into.

    Raises:
        MonoError: a folder is there, or its own folder cannot be made or written to.
    """
    place = _file_place(path)
    try:
        if os.path.lexists(place.parent) and not place.parent.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place.parent} is no folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        part = _part_of(place)
        part.open("ab").close()
        part.unlink()
    except OSError as error:
        raise MonoError(
            f"{path} cannot be written: {error.strerror}", "a writable place", "name another one"
        ) from error


def _file_place(path: Path) -> Path:
    """Where a file may be written (MonoError: a folder is there, or a device, which a file must not replace)."""
    place = real_place(path)
    if place.is_dir():
        raise MonoError(f"{path} is a folder", "the name of a file to write", f"name one in it: {path / 'NAME'}")
    if place.exists() and not place.is_file():
        raise MonoError(f"{path} is no file", "the name of a file to write", "name another one")
    return place


def _part_of(place: Path) -> Path:
    ending = f".{os.getpid()}{PART}"  # two processes must not write into one
    return place.with_name(os.fsdecode(os.fsencode(place.name)[: NAME_BYTES - len(ending)]) + ending)


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that a new one here gets: some libraries write through a file that only its owner reads."""
    probe = path.with_name(path.name + ".mode")
    probe.open("wb").close()  # asked of the system: the umask itself cannot be read without changing it
    shutil.copymode(probe, path)
    probe.unlink()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that is one: a pipe would keep us waiting for a writer, a device has no end.

    Raises:
        MonoError: a pipe, a device or a socket.
        OSError: as ``open``.
    """
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    mode = os.fstat(stream.fileno()).st_mode
    if not stat.S_ISREG(mode):
        stream.close()
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise MonoError(f"{path} is {kind}", "a file", "put a file there")
    return stream


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file of at most so many (MonoError: it has more, or is no file; OSError as ``open``)."""
    with open_regular(path) as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise MonoError(f"{path} has more than {most_bytes / 1e6:.3g} MB", "a smaller file", "see what it is")
    return content
