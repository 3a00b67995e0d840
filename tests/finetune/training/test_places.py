"""Where a finetuning run writes: only over its own, through links, in the usual modes, and never without its inputs."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from closed_loop.cli import main as cli
from collector.dataset.schema import read_samples
from finetune import TINY_BASE
from finetune.training.run import remove_intermediate
from tests.helpers.driven_samples import make_stretches, write_dataset
from tests.helpers.other_process import held_elsewhere

SHORT = ("--steps", "1", "--batch_size", "2", "--lora_rank", "2")
Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("places") / "set", make_stretches(2, 3, "train"))


def finetune(dataset: Path, out: Path, *options: str, model: Path = TINY_BASE) -> int:
    return cli(["finetune", "--model", str(model), "--dataset", str(dataset), "--out", str(out), *SHORT, *options])


def contents(folder: Path) -> Contents:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("trained", [False, True])
def test_the_base_is_never_deleted_by_its_own_training(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: bool
) -> None:
    """A base put into the run folder by hand, and one that a full training left there."""
    out = tmp_path / "w"
    if trained:
        assert finetune(dataset, out, "--method", "full") == 0
    else:
        shutil.copytree(TINY_BASE, out / "model")
    (tmp_path / "link").symlink_to(out)
    before = contents(out)
    capsys.readouterr()
    for method, base in (("lora", out / "model"), ("full", out / "model"), ("full", tmp_path / "link" / "model")):
        assert finetune(dataset, out, "--overwrite", "--method", method, model=base) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert ("would be overwritten" if trained else "not empty") in said
        assert contents(out) == before


def test_overwriting_names_what_goes_and_leaves_what_is_not_of_the_run(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    assert finetune(dataset, out) == 0
    (out / "notes.txt").write_text("mine")
    shutil.copytree(TINY_BASE, out / "model")
    base = contents(out / "model")
    assert finetune(dataset, out, "--overwrite", "--seed", "3") == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("removing")]
    assert said.startswith(f"removing from {out}, to begin again: metrics.json, adapter, ") and "model" not in said
    assert (out / "notes.txt").read_text() == "mine" and contents(out / "model") == base
    assert finetune(dataset, out, "--overwrite", "--method", "full") == 2
    assert "was not made by the run" in capsys.readouterr().err and (out / "adapter").is_dir()


def test_a_result_goes_where_its_link_leads_in_the_usual_modes(dataset: Path, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "w"
    (disk / "adapter").mkdir(parents=True)
    out.symlink_to(tmp_path / "real")
    assert finetune(dataset, out, "--checkpoint_every", "1") == 0
    shutil.rmtree(out / "adapter")
    (out / "adapter").symlink_to(disk / "adapter")
    mask = os.umask(0o027)
    try:
        assert finetune(dataset, out, "--overwrite") == 0
    finally:
        os.umask(mask)
    # --overwrite takes the link away, not what it led to; a link that is there when the run ends is followed.
    assert out.is_symlink() and (disk / "adapter").is_dir()
    files = [path for path in (out / "adapter").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_an_adapter_is_published_behind_a_link(tmp_path: Path) -> None:
    from finetune.training.checkpoint import part_of, publish

    for name, target in (("full", "disk/full"), ("dangling", "disk/dangling"), ("plain", None)):
        folder = tmp_path / name
        (tmp_path / "disk").mkdir(exist_ok=True)
        if target:
            folder.symlink_to(tmp_path / target)
        if name != "dangling":
            folder.resolve().mkdir(exist_ok=True)
            (folder / "old").touch()
        for text in ("first", "second"):
            part_of(folder).mkdir()
            (part_of(folder) / "weights").write_text(text)
            publish(folder)
            assert [path.name for path in folder.iterdir()] == ["weights"]
            assert (folder / "weights").read_text() == text and folder.is_symlink() == bool(target)
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "full", "dangling", "plain"}
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"full", "dangling"}


@pytest.mark.parametrize("verb", ["finetune", "evaluate", "overfit", "sweep", "action-range", "counterfactual"])
def test_an_unfinished_dataset_is_refused(
    verb: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that broke off, or what a kill left of a build: a tenth of the lines, and no manifest."""
    torn = tmp_path / "torn"
    shutil.copytree(dataset, torn)
    lines = (torn / "metadata.jsonl").read_text().splitlines(keepends=True)
    (torn / "metadata.jsonl").write_text(lines[0])
    (torn / "manifest.json").unlink()
    model = [] if verb == "action-range" else ["--model", str(TINY_BASE), "--dataset"]
    assert cli([verb, *model, str(torn), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "no manifest.json" in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_a_torn_record_is_a_sentence(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w"
    assert finetune(dataset, out) == 0
    for name in ("provenance.json", "config.yaml", "metrics.json"):
        whole = (out / name).read_text()
        (out / name).write_text(whole[: len(whole) // 2] + "\t{")
        capsys.readouterr()
        assert finetune(dataset, out) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert name in said and "Do: " in said
        (out / name).write_text(whole)
    assert len(list(read_samples(dataset))) == 6 and json.loads((out / "metrics.json").read_text())


def test_the_second_training_in_a_folder_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    assert finetune(dataset, out) == 0
    before = contents(out)
    with held_elsewhere(out):
        for options in ((), ("--overwrite",)):
            assert finetune(dataset, out, *options) == 2
            assert "is being written by process" in capsys.readouterr().err
    assert contents(out) == before


def test_what_lies_among_what_a_run_made_stays(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    assert finetune(dataset, out) == 0
    for folder in ("adapter", "tensorboard", "checkpoints", "rows"):
        (out / folder).mkdir(exist_ok=True)
        (out / folder / "best of all.txt").write_text("mine")
        before = contents(out)
        assert finetune(dataset, out, "--overwrite") == 2
        assert f"{folder} holds best of all.txt, which no run made" in capsys.readouterr().err
        assert contents(out) == before
        (out / folder / "best of all.txt").unlink()
    # What a finished run clears away, and a copy that somebody kept there.
    (out / "checkpoints" / "keep").mkdir()
    (out / "checkpoints" / "step-000001.safetensors").touch()
    (out / "rows" / "train.bin").touch()
    remove_intermediate(out)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["keep"] and not (out / "rows").exists()


@pytest.mark.parametrize("place", ["model/run", "set/images/run"])
def test_a_run_does_not_lie_in_what_it_reads(
    place: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would change the base, and a killed run could never go on."""
    shutil.copytree(TINY_BASE, tmp_path / "model")
    shutil.copytree(dataset, tmp_path / "set")
    before = contents(tmp_path)
    assert finetune(tmp_path / "set", tmp_path / place, model=tmp_path / "model") == 2
    assert "is read" in capsys.readouterr().err and contents(tmp_path) == before
