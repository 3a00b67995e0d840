"""New contents take the place of the old in one step, whenever a kill strikes, also where none can be exchanged."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.common import replacement
from collector.common.errors import MonoError
from collector.common.output_folder import OutputFolder
from collector.common.replacement import Replacement, settle

OWN = ("images", "lines", "record")
Contents = dict[str, str]
OLD: Contents = {"images/1": "old", "images/2": "old", "lines": "old", "record": "old"}
NEW: Contents = {"images/2": "new", "images/3": "new", "lines": "new", "record": "new"}
FOREIGN: Contents = {"notes.txt": "mine", "more/deep/notes": "mine too"}


def write(folder: Path, contents: Contents) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> Contents:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace(folder: Path) -> None:
    with OutputFolder(folder) as out:
        new = Replacement(out, OWN)
        write(new.new, NEW)
        new.swap()


def no_exchange(*_: Path) -> bool:
    return False


@pytest.mark.parametrize("exchange", [True, False])
def test_the_old_goes_the_new_comes_and_what_is_not_ours_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(replacement, "exchanged", no_exchange)
    folder = tmp_path / "out"
    write(folder, OLD | FOREIGN)
    folder.chmod(0o2770)
    (folder / "link").symlink_to("/nowhere")
    replace(folder)
    assert read(folder) == NEW | FOREIGN
    assert folder.stat().st_mode & 0o7777 == 0o2770 and (folder / "link").readlink() == Path("/nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    replace(folder)
    assert read(folder) == NEW | FOREIGN


def test_the_kernel_here_exchanges_in_one_step(tmp_path: Path) -> None:
    write(tmp_path, {"one/a": "1", "two/b": "2"})
    assert replacement.exchanged(tmp_path / "one", tmp_path / "two")
    assert read(tmp_path) == {"two/a": "1", "one/b": "2"}
    assert not replacement.exchanged(tmp_path / "one", tmp_path / "absent")


def run_until(step: int, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run in a child that dies without a word before a change of the file system; whether it died."""
    child = os.fork()
    if child == 0:
        done = 0

        def counted(change: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*words: Any, **named: Any) -> Any:
                nonlocal done
                done += 1
                if done > step:
                    os._exit(9)
                return change(*words, **named)

            return wrapper

        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "link", "symlink", "chmod"):
            monkeypatch.setattr(os, name, counted(getattr(os, name)))
            if hasattr(pathlib, "_NormalAccessor"):  # through which Python 3.10 reaches the file system
                monkeypatch.setattr(pathlib._NormalAccessor, name, staticmethod(getattr(os, name)))
        monkeypatch.setattr(replacement, "exchanged", counted(replacement.exchanged))
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must not go on as a second pytest
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_before_any_change_leaves_the_old_or_the_new_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(replacement, "exchanged", no_exchange)
    seen = []
    for step in range(200):
        folder = tmp_path / f"{step}" / "out"
        write(folder, OLD | FOREIGN)
        died = run_until(step, lambda folder=folder: replace(folder), monkeypatch)  # type: ignore[misc]
        if not exchange:
            settle(folder)  # as every reader does
        found = read(folder)
        inside = {name: found.pop(name) for name in list(found) if name.startswith(".unfinished/")}
        assert found in (OLD | FOREIGN, NEW | FOREIGN), f"killed before change {step}: {found}"
        assert not inside, "the parent could be written: the new contents grow beside"
        seen.append(found["lines"])
        replace(folder)
        assert read(folder) == NEW | FOREIGN and [path.name for path in folder.parent.iterdir()] == ["out"]
        if not died:
            break
    assert not died and step > 20 and seen == sorted(seen, reverse=True) and {*seen} == {"old", "new"}


def test_all_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the exchange must not leave names of empty files; a disk that fails leaves the old."""
    folder, told = tmp_path / "out", []
    sync, exchange = replacement.all_to_disk, replacement.exchanged
    monkeypatch.setattr(replacement, "all_to_disk", lambda new: told.append(read(new)) or sync(new))
    monkeypatch.setattr(replacement, "exchanged", lambda *both: told.append("exchanged") or exchange(*both))
    write(folder, OLD)
    replace(folder)
    assert told == [NEW, "exchanged"]

    class Failing:
        def syncfs(self, _handle: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Failing())
    write(folder, OLD)
    with pytest.raises(OSError, match="Input/output error"):
        replace(folder)
    assert read(folder) == OLD | {"images/3": "new"}


def test_a_parent_that_is_not_ours_gets_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write(folder, OLD)
    monkeypatch.setattr(replacement, "_can_lie_beside", lambda _: False)  # as of a mount point
    with OutputFolder(folder) as out:
        new = Replacement(out, OWN)
        assert new.new.is_relative_to(folder)
        write(new.new, NEW)
        assert {path.name for path in tmp_path.iterdir()} == {"out"}
        new.swap()
    assert read(folder) == NEW


def test_where_somebody_stands_the_folder_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", OLD)
    monkeypatch.chdir(tmp_path / "out")
    replace(Path())
    assert read(Path.cwd()) == NEW == read(tmp_path / "out")


def test_a_folder_of_somebody_else_under_our_hidden_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / ".out.unfinished", {"thesis": "mine"})
    with OutputFolder(tmp_path / "out") as out, pytest.raises(MonoError, match="holds thesis"):
        Replacement(out, OWN)
    assert read(tmp_path / ".out.unfinished") == {"thesis": "mine"}


def test_nobody_else_gets_in_while_the_old_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write(folder, OLD)
    tried = []
    remove = shutil.rmtree

    def removing(path: Path, *rest: Any) -> None:
        if read(folder) == NEW:
            with pytest.raises(MonoError, match="is being written by"):
                OutputFolder(folder)
            tried.append(path)
        remove(path, *rest)

    monkeypatch.setattr(shutil, "rmtree", removing)
    replace(folder)
    assert tried


def test_what_others_write_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that writes to a folder beside the dataset: new files, new folders, and more of an old file."""
    folder, exchange = tmp_path / "out", replacement.exchanged
    write(folder, OLD | FOREIGN)
    late = {"more/deep/late": "1", "more/new/late": "2", "late.txt": "3"}

    def writing(one: Path, other: Path) -> bool:
        write(other, late)
        with (other / "notes.txt").open("a") as notes:
            notes.write(" and more")
        return exchange(one, other)

    monkeypatch.setattr(replacement, "exchanged", writing)
    replace(folder)
    assert read(folder) == NEW | FOREIGN | late | {"notes.txt": "mine and more"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_stays_the_folder_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder, FOREIGN)
    before = {path: path.stat().st_ino for path in (folder, *folder.rglob("*"))}
    replace(folder)
    assert read(folder) == NEW | FOREIGN
    assert all(path.stat().st_ino == number for path, number in before.items())


@pytest.mark.parametrize("name", ["n" * 255, "あ" * 84])
def test_a_long_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, OLD | FOREIGN)
    replace(tmp_path / name)
    assert read(tmp_path / name) == NEW | FOREIGN and [path.name for path in tmp_path.iterdir()] == [name]
