"""What a person can get wrong about `alpamayo-mono finetune`: one sentence, exit code 2, and nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402

from closed_loop.cli import main as cli  # noqa: E402
from collector.common.errors import pip_install  # noqa: E402
from collector.dataset.builder import main as build  # noqa: E402
from collector.dataset.schema import read_samples  # noqa: E402
from finetune import TINY_BASE, TINY_STEERED  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora, save_adapter  # noqa: E402
from finetune.checkpoint import load_model  # noqa: E402
from finetune.training.batches import cache_vision, collate  # noqa: E402
from finetune.training.checkpoint import MasterWeights  # noqa: E402
from finetune.training.encoding import read_rows, write_rows  # noqa: E402
from tests.helpers.pictures import black_png  # noqa: E402
from tests.helpers.small_model import small_model, small_rows  # noqa: E402
from tests.helpers.synthetic_bag import drive_course, write_bag  # noqa: E402

SHORT = ("--steps", "1", "--batch_size", "2", "--lora_rank", "2")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refusals")
    bag = write_bag(root / "bag", drive_course())
    build(["--bags", str(bag), "--out", str(root / "set"), "--stride", "15", "--val-fraction", "0"])
    return root / "set"


def finetune(dataset: Path, out: Path, *options: str, model: Path = TINY_BASE) -> int:
    return cli(["finetune", "--model", str(model), "--dataset", str(dataset), "--out", str(out), *SHORT, *options])


def broken(built: Path, folder: Path, change: Callable[[int, dict[str, Any]], None]) -> Path:
    """A copy of a dataset whose lines a function has changed."""
    shutil.copytree(built, folder)
    lines = [json.loads(line) for line in (built / "metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        change(number, line)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def an_adapter(folder: Path) -> Path:
    loaded = small_model()
    save_adapter(add_lora(loaded.model, LoraSettings(lora_rank=2)), folder, Path("small"), "mono")
    return folder


def a_torn_model(folder: Path) -> Path:
    shutil.copytree(TINY_BASE, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    return folder


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (an_adapter, "is an adapter"),
        (a_torn_model, "damaged"),
        (lambda folder: folder, "No such|no "),
        (lambda folder: (folder.mkdir(), folder)[1], "no "),
    ],
    ids=["adapter", "torn", "absent", "empty"],
)
def test_a_model_that_is_none_gets_one_sentence(
    model: Callable[[Path], Path], says: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(built, tmp_path / "run", model=model(tmp_path / "model")) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "Traceback" not in said[0]
    assert any(word in said[0] for word in says.split("|")) and str(tmp_path) in said[0]
    assert not (tmp_path / "run").exists()


def test_a_dataset_that_is_none_gets_one_sentence(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(built, empty)
    (empty / "metadata.jsonl").write_text("")
    all_bad = broken(built, tmp_path / "bad", lambda _, line: line["future"][3].__setitem__(1, float("nan")))
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    for folder, says in ((empty, "no sample"), (nothing, "no metadata.jsonl"), (all_bad, "no usable sample")):
        assert finetune(folder, tmp_path / "run") == 2
        said = capsys.readouterr().err.strip()
        assert says in said and str(folder) in said and "\n" not in said
    assert "future" in said and "finite" in said, "what was wrong with the first line"
    assert not (tmp_path / "run").exists()


def test_bad_samples_are_named_counted_and_set_aside(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(number: int, line: dict[str, Any]) -> None:
        if number == 0:
            line["future"][10][0] = float("nan")
        if number == 1:
            line["history"][2][1] = float("inf")
        if number == 2:
            line["reasoning"] = float("nan")
        if number == 3:
            line["frames"][-1] = "images/nothing.jpg"
        if number == 5:
            line["frames"][-1] = "images/pipe.jpg"
        if number == 6:
            line["frames"][-1] = "images/huge.jpg"
        if number == 7:
            line["frames"][-1] = "/dev/zero"
        if number == 4:
            line["reasoning"] = "Turn left <|traj_future_start|> now."

    dataset = broken(built, tmp_path / "set", spoil)
    os.mkfifo(dataset / "images" / "pipe.jpg")
    (dataset / "images" / "huge.jpg").write_bytes(black_png(30_000, 30_000))
    names = [sample.id for sample in read_samples(built)]
    assert len(names) > 9
    assert finetune(dataset, tmp_path / "run") == 0
    said = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["set_aside"] == {
        "not a valid sample": 4,
        "unreadable frame": 3,
        "unusable frame, history or reasoning": 1,
    }
    assert metrics["train_samples"] == len(names) - 8
    assert names[3] in said and "line 1, field future" in said and "set aside 8" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "set_aside.jsonl").read_text().splitlines()]
    assert [line["sample"] for line in lines[4:]] == names[3:7]
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "3 unreadable frame" in card and "tiny_base" in card and "camera mode mono" in card
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert finetune(dataset, tmp_path / "run") == 2
    assert "finished run" in capsys.readouterr().err
    assert finetune(dataset, tmp_path / "run", "--learning_rate", "1") == 2
    assert "learning_rate" in capsys.readouterr().err
    assert kept == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_four_bits_without_bitsandbytes_name_the_extra(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert finetune(built, tmp_path / "run", "--method", "qlora") == 2
    assert pip_install("gpu") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_four_bits_train_an_adapter_of_both_halves(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    assert finetune(built, tmp_path / "run", "--method", "qlora", "--dtype", "bfloat16") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["trainable_parameters"]["language model"] > 0 < metrics["trainable_parameters"]["action expert"]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_full_training_writes_a_whole_model(built: Path, tmp_path: Path) -> None:
    options = ("--method", "full", "--no-adapt_language", "--learning_rate", "1e-3", "--dtype", "bfloat16")
    assert finetune(built, tmp_path / "run", *options) == 0
    assert not (tmp_path / "run" / "adapter").exists()
    before = load_model(TINY_BASE, dtype=torch.bfloat16).model.state_dict()
    after = load_model(tmp_path / "run" / "model").model.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name].to(before[name].dtype))}
    assert moved and all(name.startswith(("expert.", "action_")) for name in moved)
    assert {name.partition(".")[0] for name in moved} == {"expert", "action_in_proj", "action_out_proj"}


def test_small_steps_of_bfloat16_weights_are_not_lost() -> None:
    layer = torch.nn.Linear(4, 4).to(torch.bfloat16)
    layer.bias.requires_grad_(False)
    start = layer.weight.detach().clone()
    weights = MasterWeights(layer)
    assert list(weights.masters) == ["weight"]
    for _ in range(64):
        layer.weight.grad = torch.ones_like(layer.weight)
        weights.take_gradients()
        with torch.no_grad():
            weights.masters["weight"] -= 1e-4 * weights.masters["weight"].grad
        weights.give_values()
    assert torch.allclose(layer.weight.float(), start.float() - 6.4e-3, atol=4e-3 * float(start.abs().max()))
    assert not torch.equal(layer.weight, start)


def test_rows_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    cached = list(cache_vision(loaded.model.to(torch.bfloat16), rows, torch.device("cpu")))
    assert cached[0].vision.embeds.dtype == torch.bfloat16
    mixed = [cached[0], rows[1], replace(cached[2], history=torch.arange(48.0).view(16, 3))]
    write_rows(iter(mixed), tmp_path / "rows.bin")
    for before, after in zip(mixed, read_rows(tmp_path / "rows.bin"), strict=False):
        assert before.sample_id == after.sample_id and (before.vision is None) == (after.vision is None)
        for name in ("input_ids", "label_mask", "silent_ids", "actions", "grid_thw", "pixels", "history"):
            first, second = getattr(before, name), getattr(after, name)
            assert (first is None and second is None) or (first.dtype == second.dtype and torch.equal(first, second))
        if before.vision is not None:
            assert torch.equal(before.vision.embeds, after.vision.embeds)
            assert all(map(torch.equal, before.vision.deepstack, after.vision.deepstack))
    pair = [collate(kind[:1], 0) for kind in (mixed, read_rows(tmp_path / "rows.bin"))]
    assert torch.equal(pair[0].vision.embeds, pair[1].vision.embeds)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def one_by_one() -> Iterator[Any]:
        for _ in range(5):
            row = replace(cached[0], actions=torch.zeros(64, 2))
            alive.add(row.actions)
            assert len(alive) <= 2, "rows are let go once they are written"
            yield row
            del row

    write_rows(one_by_one(), tmp_path / "many.bin")
    write_rows([], tmp_path / "none.bin")
    assert read_rows(tmp_path / "none.bin") == []


def test_a_gpu_that_is_not_there_is_said(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert finetune(built, tmp_path / "run", "--device", "cuda") == 2
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (("--lora_rank", "8"), "--lora_rank 16 --lora_alpha 32"),
        (("--lora_rank", "16", "--cameras", "mono-4frames"), "--cameras mono"),
        (("--method", "full"), "--start_from with --method full"),
        (("--lora_rank", "16", "--no-adapt_language"), "that the adapter was trained with"),
    ],
)
def test_an_adapter_that_cannot_be_gone_on_from_is_refused(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], also: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out"
    assert finetune(built, out, "--start_from", str(TINY_STEERED), *also) == 2
    assert said in capsys.readouterr().err
    if also[-1] != "--no-adapt_language":  # which only the model with its layers tells
        assert not out.exists() or not any(out.iterdir())


def test_a_training_goes_on_from_the_adapter_that_is_here(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert finetune(built, out, "--lora_rank", "16", "--start_from", str(TINY_STEERED), "--learning_rate", "1e-9") == 0
    before, after = (load_file(each / "adapter_model.safetensors") for each in (TINY_STEERED, out / "adapter"))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-6) for name in before)
    assert len(json.loads((out / "provenance.json").read_text())["inputs"]) == 3
