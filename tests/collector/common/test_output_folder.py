"""One process at a time writes to an output folder, and only what this program made is written over."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.common.output_folder import OutputFolder, alone_in_out, refuse_inside, refuse_within
from collector.common.run_folder import open_run
from tests.helpers.broken_paths import broken_path, unprivileged
from tests.helpers.other_process import held_elsewhere


@dataclass(frozen=True)
class Settings:
    out: Path
    steps: int = 3


def test_the_second_is_refused_at_once_and_told_who_was_first(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with held_elsewhere(tmp_path / "run") as pid:
        for name in ("run", "link", "run/../run"):
            with pytest.raises(MonoError, match=f"is being written by process {pid} \\("):
                OutputFolder(tmp_path / name)
    OutputFolder(tmp_path / "link").close()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "run") as pid:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        OutputFolder(tmp_path / "run").close()


def test_an_unused_folder_is_unmade_and_a_used_one_stays(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "a" / "new"):
        pass
    assert not (tmp_path / "a" / "new").exists()
    with OutputFolder(tmp_path / "new") as out:
        (out.path / "result").touch()
    assert (tmp_path / "new" / "result").exists()
    (tmp_path / "empty").mkdir()
    OutputFolder(tmp_path / "empty").close()
    assert (tmp_path / "empty").is_dir()


def test_a_replaced_folder_is_no_way_around_the_lock(tmp_path: Path) -> None:
    """Whoever opened the old folder before it was replaced must not take its lock for that of the new one."""
    folder = tmp_path / "run"
    first = OutputFolder(folder)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    first.close()
    with OutputFolder(folder) as out:
        assert os.path.samestat(folder.stat(), os.fstat(out._lock))


@pytest.mark.parametrize("kind", ["file", "below", "loop", "long", "deep", "zero", "behind", "private", "device"])
def test_a_place_that_cannot_be_an_output_folder_is_a_sentence(kind: str) -> None:
    with broken_path(kind) as path, unprivileged(), pytest.raises(MonoError, match="Do: "):
        OutputFolder(path)


def test_only_a_run_of_the_same_verb_is_written_over(tmp_path: Path) -> None:
    ran = []

    @alone_in_out("evaluate")
    def evaluate(config: Settings) -> int:
        ran.append(config)
        open_run(config.out, config, (), "evaluate")
        return 7

    fresh = Settings(tmp_path / "fresh")
    assert evaluate(fresh) == 7 and evaluate(fresh) == 7
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("of my own")
    with pytest.raises(MonoError, match=r"not empty: it holds config\.yaml"):
        evaluate(Settings(tmp_path / "mine"))
    assert (tmp_path / "mine" / "config.yaml").read_text() == "of my own"
    open_run(tmp_path / "trained", fresh, (), "finetune")
    with pytest.raises(MonoError, match="holds a run of finetune"):
        evaluate(Settings(tmp_path / "trained"))
    (tmp_path / "strange").mkdir()
    for text, says in (('{"a": 1}', "something else"), ('{"a"', "cannot be read"), ("[]", "holds a list")):
        (tmp_path / "strange" / "provenance.json").write_text(text)
        with pytest.raises(MonoError, match=says):
            evaluate(Settings(tmp_path / "strange"))
    assert len(ran) == 2


def test_a_run_of_an_older_version_is_ours(tmp_path: Path) -> None:
    open_run(tmp_path, Settings(tmp_path))
    facts = json.loads((tmp_path / "provenance.json").read_text())
    del facts["verb"]
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    with OutputFolder(tmp_path) as out:
        out.require_run("compare")


def test_what_a_run_is_made_from_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    removed = [tmp_path / "model", tmp_path / "rows"]
    refuse_within(removed, [tmp_path / "models", tmp_path, tmp_path / "dataset"])
    for given in ("model", "model/inner", "link", "link/inner", "dataset/../model"):
        with pytest.raises(MonoError, match="would be overwritten"):
            refuse_within(removed, [tmp_path / given])


@dataclass(frozen=True)
class Reading:
    out: Path
    bags: tuple[Path, ...] = ()
    model: Path | None = None


def test_a_result_does_not_lie_in_what_it_is_made_from(tmp_path: Path) -> None:
    """The hash of an input would be another one after it."""
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "split.mcap").touch()
    (tmp_path / "link").symlink_to(tmp_path / "bag")
    for out in ("bag", "bag/new", "bag/new/deep", "link/new", "bag/../link/new"):
        for given in (
            Reading(tmp_path / out, (tmp_path / "other", tmp_path / "bag")),
            Reading(tmp_path / out, (), tmp_path / "link"),
        ):
            with pytest.raises(MonoError, match=r"is read.*choose another --out"):
                refuse_inside(given)
    for out in ("new", "bag2", "."):
        refuse_inside(Reading(tmp_path / out, (tmp_path / "bag", tmp_path / "absent", tmp_path / "bag" / "split.mcap")))
