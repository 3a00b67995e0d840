"""Run folders explain themselves; configurations refuse what they do not know."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml

from collector.common.arguments import Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.run_folder import git_commit, hash_path, open_run
from collector.dataset.config import BuildConfig


@dataclass(frozen=True)
class Inner:
    gain: float = 0.5
    names: tuple[str, ...] = ("a",)
    expert: int = 0


@dataclass(frozen=True)
class Outer:
    model: Path
    steps: int = 10
    mode: Literal["mono", "four"] = "mono"
    limit: float | None = None
    fast: bool = False
    inner: Inner = field(default_factory=Inner)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def parse(file: Path, *words: str) -> Outer:
    return command_line(Outer, ["--config", str(file), *words], "alpamayo-mono test")


def test_a_run_folder_tells_what_ran(tmp_path: Path) -> None:
    data = write(tmp_path / "data.bin", "hello")
    run = open_run(tmp_path / "run", Outer(Path("m"), limit=2.5), inputs=[data, tmp_path / "absent"])
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config == {
        "model": "m", "steps": 10, "mode": "mono", "limit": 2.5, "fast": False,
        "inner": {"gain": 0.5, "names": ["a"], "expert": 0},
    }  # fmt: skip
    assert parse(run.folder / "config.yaml") == Outer(Path("m"), limit=2.5)
    facts = json.loads((run.folder / "provenance.json").read_text())
    known = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # SHA-256 of "hello"
    assert facts["inputs"] == {str(data): known, str(tmp_path / "absent"): None}
    assert facts["packages"]["numpy"] == np.__version__ and "commit" in facts and facts["python"].startswith("3.")
    run.write_metrics({"loss": np.float32(0.5), "bad": float("nan"), "path": tmp_path, "rows": np.arange(2)})
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics == {"loss": 0.5, "bad": None, "path": str(tmp_path), "rows": [0, 1]}
    (tmp_path / "file").write_text("")
    with pytest.raises(MonoError, match="cannot be made"):
        open_run(tmp_path / "file" / "run", Outer(Path("m")))


def test_folder_hashes_follow_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a", "1")
    first = hash_path(folder)
    write(folder / "a", "2")
    second = hash_path(folder)
    (folder / "a").rename(folder / "b")
    assert len({first, second, hash_path(folder)}) == 3
    # Of a recording too large to read whole, its ends count: the same name and size is not the same bag.
    hashes = set()
    for end in (b"one", b"two"):
        with (folder / "large.mcap").open("wb") as stream:
            stream.seek(20 * 1024 * 1024)
            stream.write(end)
        hashes.add(hash_path(folder))
    assert len(hashes) == 2
    commit = git_commit()
    assert commit is None or len(commit.removesuffix("+changes")) == 40


def test_yaml_becomes_the_dataclass_and_words_win(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "model: weights\nsteps: 3\ninner:\n  gain: 2\n  names: [x, y]\n")
    assert parse(file) == Outer(Path("weights"), 3, inner=Inner(2.0, ("x", "y")))
    changed = parse(file, "steps:=4", "--inner.gain", "1", "--limit", "None")
    assert changed == Outer(Path("weights"), 4, inner=Inner(1.0, ("x", "y")))
    assert parse(write(tmp_path / "empty.yaml", ""), "--model", "m") == Outer(Path("m"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: m\nstep: 3", "unknown key 'step'.*perhaps 'steps'"),
        ("model: m\ninner: {gian: 3}", r"unknown key 'inner\.gian'.*perhaps 'inner\.gain'"),
        ("steps: 3", "Missing.*--model"),
        ("model: m\nsteps: many", "steps = 'many'"),
        ("model: m\nsteps: true", "steps = True"),
        ("model: m\nsteps: 1.5", "steps = 1.5"),
        ("model: m\nmode: stereo", "mode = 'stereo'.*mono or four"),
        ("model: m\nlimit: [1]", "limit"),
        ("model: m\ninner: 3", "inner = 3"),
        ("model: m\ninner: {names: [1]}", r"inner\.names\[0\] = 1"),
        (
            "model: m\ninner: {teacher: 1}",
            r"unknown key 'inner\.teacher'.*'inner\.expert', as 'teacher' is called since",
        ),
        ("- a list", "holds a list"),
        ("model: [unclosed", "cannot be read"),
    ],
)
def test_wrong_files_are_refused_with_the_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MonoError, match=says):
        parse(write(tmp_path / "c.yaml", text))


@dataclass(frozen=True)
class Several(Arguments):
    times_s: tuple[float, ...] = argument((0.5,), "some times", 0.0, 9.0)
    fast: bool = False


def test_numbers_of_a_list_may_stand_in_one_word_and_one_may_stand_for_a_list(tmp_path: Path) -> None:
    for words in (
        ["--times_s", "0,1.5,3"], ["--times-s", "0", "1.5", "3"], ["--times_s=0,1.5,3"], ["times_s:=0,1.5,3"],
        ["--fast", "--times_s", "0,1.5", "3"],
    ):  # fmt: skip
        assert command_line(Several, words, "test").times_s == (0.0, 1.5, 3.0)
    assert command_line(Several, ["--times_s", "2", "--fast"], "test") == Several((2.0,), True)
    # As a setting was written that took one number in an older version.
    file = write(tmp_path / "c.yaml", "times_s: 2")
    assert command_line(Several, ["--config", str(file)], "test").times_s == (2.0,)
    assert Several(3).times_s == (3.0,)  # type: ignore[arg-type]
    for words in (["--times_s", "0,,1"], ["--times_s", "0,x"], ["--times_s="], ["--times_s", "-1"]):
        with pytest.raises(MonoError, match="times"):
            command_line(Several, words, "test")
    assert command_line(Several, ["--times_s", "--fast"], "test") == Several((), True)
    with pytest.raises(MonoError, match="0 to 9"):
        command_line(Several, ["--times_s", "0,10"], "test")


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "model: weights\nfast: true\nsteps: 3\ninner:\n  names: [x, y]\n  gain: 2.0\n")
    config = command_line(Outer, ["--config", str(file), "--steps", "7", "--inner.gain", "0.1"], "test")
    assert config == Outer(Path("weights"), 7, fast=True, inner=Inner(0.1, ("x", "y")))
    assert command_line(Outer, [f"--config={file}", "--no-fast"], "test").fast is False
    assert command_line(Outer, ["--model", "m"], "test") == Outer(Path("m"))
    with pytest.raises(MonoError, match="unknown key"):
        command_line(Outer, ["--config", str(write(tmp_path / "bad.yaml", "stpes: 1")), "--model", "m"], "test")
    with pytest.raises(MonoError, match="without a file"):
        command_line(Outer, ["--config"], "test")
    build = write(
        tmp_path / "build.yaml", "bags: [one, two]\nout: there\nthresholds: {window_s: 2.0}\nreasoning: null\n"
    )
    parsed = command_line(BuildConfig, ["--config", str(build), "--stride", "2"], "build")
    assert parsed.bags == (Path("one"), Path("two")) and parsed.thresholds.window_s == 2.0 and parsed.reasoning is None


@pytest.mark.parametrize("words", [["--model", ""], ["--model="], ["model:="], [""], ["--steps", "3", "--model", ""]])
def test_an_empty_path_is_not_the_working_folder(words: list[str]) -> None:
    """As a shell's variable that is not set gives it."""
    with pytest.raises(MonoError, match=r"is empty.*Do: name one"):
        command_line(Outer, words, "alpamayo-mono test")


def test_an_empty_path_of_an_alias_or_a_file(tmp_path: Path) -> None:
    for words in (["-o", ""], ["--out", ""], ["--bags", "a", "", "--out", "b"]):
        with pytest.raises(MonoError, match="is empty"):
            command_line(BuildConfig, ["--bags", "a", *words], "alpamayo-mono build")
    with pytest.raises(MonoError, match=r"config\.yaml: model is empty"):
        parse(write(tmp_path / "config.yaml", 'model: ""'))
    assert command_line(Outer, ["--model", "."], "alpamayo-mono test").model == Path()
