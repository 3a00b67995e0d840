"""Files come whole, get the usual mode, go where links lead; what cannot be looked up gets a sentence."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from closed_loop.ros.config import DriveConfig
from collector.common.arguments import Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.files import (
    check_file_place,
    give_usual_mode,
    real_place,
    with_home,
    with_homes,
    write_atomically,
)
from collector.common.text_files import read_json
from tests.helpers.broken_paths import broken_path, unprivileged


def test_a_file_is_written_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to(tmp_path / "disk" / "page.html")  # nothing there yet
    for text in ("first", "second"):
        write_atomically(link, text)
        assert link.is_symlink() and (tmp_path / "disk" / "page.html").read_text() == text
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["page.html"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_a_private_file_gets_the_mode_that_a_new_one_has(tmp_path: Path, mask: int) -> None:
    file = tmp_path / "weights.safetensors"
    before = os.umask(mask)
    try:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        give_usual_mode(file)
        (tmp_path / "other").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "other"}


@pytest.mark.parametrize("name", ["loop", "long", "deep", "zero", "behind", "through"])
def test_a_path_that_cannot_be_looked_up_is_a_sentence(name: str) -> None:
    with broken_path(name) as path, unprivileged(), pytest.raises(MonoError, match=r"Expected: .+ Do: "):
        real_place(path)


@pytest.mark.parametrize("name", ["below", "dangling", "device"])
def test_a_path_with_nothing_there_is_one(name: str) -> None:
    with broken_path(name) as path:
        assert real_place(path).is_absolute()


def test_a_place_for_a_file_is_tried_before_the_work(tmp_path: Path) -> None:
    check_file_place(tmp_path / "new" / "page.html")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").write_text("mine")
    check_file_place(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    for place in (tmp_path, tmp_path / "file" / "page.html", Path("/proc/page.html")):
        with pytest.raises(MonoError, match="Do: "):
            check_file_place(place)


def test_torn_json_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    for text in ('{"record": 3', "", "[1]", "\x00", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(MonoError, match=r"stages\.json"):
            read_json(file)


def test_no_home_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MonoError, match="set HOME"):
        with_home("~no-such-user-here/models")
    monkeypatch.setenv("HOME", "/somewhere")
    assert with_home("~/models") == Path("/somewhere/models")


def test_what_could_not_be_written_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "page", "old")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fsync(_handle: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "page", "new")
    assert (tmp_path / "page").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize("name", ["n" * 255, "あ" * 85, "n" * 250])
def test_a_name_may_be_as_long_as_the_system_lets_it(tmp_path: Path, name: str) -> None:
    check_file_place(tmp_path / name)
    write_atomically(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A record of a run, which is UTF-8, could not say it."""
    place = tmp_path / os.fsdecode("日本".encode("euc_jp"))
    place.mkdir()
    with pytest.raises(MonoError, match=r"\\udcc6.* is not UTF-8") as refused:
        real_place(place)
    assert str(refused.value).isascii()


@dataclass(frozen=True)
class Inner:
    file: Path


@dataclass(frozen=True)
class Settings(Arguments):
    bags: tuple[Path, ...]
    dataset: Path | None
    inner: Inner
    out: str = argument("", "a ROS parameter")
    text: str = argument("~/x", "no path")


def test_the_home_folder_is_meant_where_no_shell_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = Settings((Path("~/a"), Path("b/~")), Path("~"), Inner(Path("~/c")), out="~/d")
    meant = Settings((tmp_path / "a", Path("b/~")), tmp_path, Inner(tmp_path / "c"), out=str(tmp_path / "d"))
    assert with_homes(given) == meant and with_homes(meant) is meant
    for path in ("~nobody_of_this_name/x", "~nobody_of_this_name"):
        with pytest.raises(MonoError, match="no home folder"):
            with_homes(Settings((), Path(path), Inner(Path())))
    assert with_homes(Settings((), Path("./~"), Inner(Path()))).dataset == tmp_path


def test_the_home_folder_is_meant_in_every_place_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "drive.yaml").write_text("laps: 7\n")
    words = ["config:=~/drive.yaml", "vehicle:=~/kart.yaml", "simulated_vehicle:=~/other.yaml"]
    config = command_line(DriveConfig, words, "alpamayo-mono drive")
    assert config.laps == 7
    assert (config.vehicle, config.simulated_vehicle) == (str(tmp_path / "kart.yaml"), str(tmp_path / "other.yaml"))
