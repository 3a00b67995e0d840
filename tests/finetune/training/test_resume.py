"""Killed at any step and started again: the same curve and adapter, to the last bit. Two processes: the same run."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import save_file  # noqa: E402

from collector.common.command_line import command_line  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.builder import main as build  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora  # noqa: E402
from finetune.lora_finetune import FinetuneConfig  # noqa: E402
from finetune.training.batches import cache_vision  # noqa: E402
from finetune.training.checkpoint import Checkpoints  # noqa: E402
from finetune.training.encoding import encoded_rows, write_rows  # noqa: E402
from finetune.training.loop import LoopSettings, train  # noqa: E402
from finetune.training.run import kept_lines, open_training_run  # noqa: E402
from tests.helpers.small_model import small_model, small_rows  # noqa: E402
from tests.helpers.synthetic_bag import COURSE, drive_course, write_bag  # noqa: E402
from tests.helpers.training_runs import adapter, command, curve, finish, kill_at  # noqa: E402

# A pass of one process holds as many rows as each of two processes has: rounding depends on that number.
OPTIONS = (
    "--steps",
    "9",
    "--batch_size",
    "4",
    "--learning_rate",
    "1e-4",
    "--warmup_steps",
    "2",
    "--lora_rank",
    "4",
    "--reasoning_dropout",
    "0.5",
    "--noise_draws",
    "1",
    "--validate_every",
    "4",
    "--rows_per_pass",
    "2",
    "--checkpoint_every",
    "2",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    bag = write_bag(root / "bag", drive_course(COURSE * 4), lap_at=lambda t_s: 1 + int(t_s // 30))
    build(["--bags", str(bag), "--out", str(root / "set"), "--stride", "60", "--val-fraction", "0.3"])
    return root / "set"


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(command(TINY_BASE, dataset, out, *OPTIONS))
    return out


def test_a_run_killed_twice_equals_an_undisturbed_one(dataset: Path, whole: Path, tmp_path: Path) -> None:
    words = command(TINY_BASE, dataset, tmp_path / "run", *OPTIONS)
    assert kill_at(words, tmp_path / "run", 3) < 9
    assert not (tmp_path / "run" / "adapter").exists()
    assert kill_at(words, tmp_path / "run", 7, delay_s=0.02) < 9
    finish(words)
    assert curve(tmp_path / "run") == curve(whole), "no line lost, doubled or different"
    ours, theirs = adapter(tmp_path / "run"), adapter(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    metrics = [json.loads((out / "metrics.json").read_text()) for out in (tmp_path / "run", whole)]
    for name in ("first_validation_flow_loss", "last_validation_text_loss", "train_samples"):
        assert metrics[0][name] == metrics[1][name]
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "rows").exists()


def test_two_processes_equal_one_at_the_same_global_batch(dataset: Path, whole: Path, tmp_path: Path) -> None:
    printed = finish(command(TINY_BASE, dataset, tmp_path / "two", *OPTIONS, processes=2))
    assert printed.count("adapter: ") == 1, "only one process writes and tells"
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["processes"] == 2
    one, two = curve(whole), curve(tmp_path / "two")
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=False):
        assert left == pytest.approx(right, abs=1.5e-6), "lines are rounded to 1e-6"
    ours, theirs = adapter(whole), adapter(tmp_path / "two")
    # AdamW moves a weight whose gradient is mere rounding by a part of the learning rate, here 1e-4.
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6


SETTINGS = LoopSettings(
    steps=6,
    batch_size=3,
    learning_rate=1e-2,
    warmup_steps=1,
    noise_draws=1,
    reasoning_dropout=0.4,
    validate_every=3,
    checkpoint_every=2,
)


def _train(out: Path, settings: LoopSettings, dropout: float = 0.0) -> dict[str, torch.Tensor]:
    """Train the small model; returns what was trained."""
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    loaded = small_model()
    rows = list(cache_vision(loaded.model, small_rows(loaded, 4), torch.device("cpu")))
    add_lora(loaded.model, LoraSettings(lora_rank=2, lora_dropout=dropout))
    train(loaded.model, rows, rows[:1], settings, loaded.processor.pad_id, out)
    return {name: value.detach() for name, value in loaded.model.named_parameters() if value.requires_grad}


def test_passes_of_a_few_rows_make_the_same_step(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole", SETTINGS)
    parts = _train(tmp_path / "parts", replace(SETTINGS, rows_per_pass=2))
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-6), name


def test_a_damaged_checkpoint_makes_way_for_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _train(tmp_path / "whole", SETTINGS, dropout=0.2)
    kept = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
    assert kept == ["step-000004.safetensors", "step-000006.safetensors"], "the newest two, and nothing half written"
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    newest = tmp_path / "torn" / "checkpoints" / kept[1]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = _train(tmp_path / "torn", SETTINGS, dropout=0.2)
    assert "damaged" in capsys.readouterr().out
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert [line["step"] for line in curve(tmp_path / "torn")] == [line["step"] for line in curve(tmp_path / "whole")]


def test_what_is_no_checkpoint_of_this_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe and a folder of that name, facts that are none, a step beyond the last, and weights of other shapes."""
    _train(tmp_path / "run", SETTINGS)
    folder = tmp_path / "run" / "checkpoints"
    newest = folder / "step-000006.safetensors"
    os.mkfifo(folder / "step-000007.safetensors")
    (folder / "step-000008.safetensors").mkdir()
    save_file({"a": torch.zeros(1)}, str(folder / "step-000009.safetensors"), metadata={"facts": "[]"})
    found = Checkpoints(folder).newest()
    assert found is not None and found.step == 6 and capsys.readouterr().out.count("damaged") == 3
    with pytest.raises(MonoError, match=r"step-000009\.safetensors is of no step of this run.*at most 6"):
        _train(tmp_path / "run", SETTINGS)
    for number in (7, 9):
        (folder / f"step-00000{number}.safetensors").unlink()
    (folder / "step-000008.safetensors").rmdir()
    for kind in ("weight", "exp_avg"):
        name = next(name for name in found.tensors if name.startswith(f"{kind}/"))
        save_file(found.tensors | {name: torch.zeros(3, 5)}, str(newest), metadata={"facts": json.dumps(found.facts)})
        with pytest.raises(MonoError, match=rf"in which {kind}/.* has the shape \(3, 5\)"):
            _train(tmp_path / "run", SETTINGS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("train.json", '[{"sample_id": "a", "ten'), ("train.json", "{}]"), ("train.json", '[{"tensors": [1]}]'),
     ("train.bin", ""), ("train.bin", None), ("val.json", "[3]")],
)  # fmt: skip
def test_torn_rows_are_a_sentence(tmp_path: Path, name: str, text: str | None) -> None:
    for split in ("train", "val"):
        write_rows(small_rows(small_model(), 2), tmp_path / f"{split}.bin")
    assert len(encoded_rows(tmp_path)[0]) == len(encoded_rows(tmp_path)[1]) > 0
    (tmp_path / name).unlink(missing_ok=True)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(
        MonoError, match=r"encoded samples in .* are damaged.*Do: delete .* goes on from its checkpoint"
    ):
        encoded_rows(tmp_path)


def test_a_loss_that_is_no_number_leaves_the_checkpoint(tmp_path: Path) -> None:
    settings = replace(SETTINGS, warmup_steps=0)
    for name in ("learning_rate", "gradient_clip"):  # no command gives such a rate: it makes the numbers run away
        object.__setattr__(settings, name, 1e18)
    with pytest.raises(MonoError, match=r"not finite at step \d.*samples: sample-"):
        _train(tmp_path / "run", settings)
    found = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    # The very first step of such a rate may already end in numbers that are none: then there is no checkpoint yet.
    assert found is None or all(bool(tensor.isfinite().all()) for tensor in found.tensors.values())


def test_torn_and_later_lines_are_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "validation_text_loss": 1}\n{"step": 3}\n{"st')
    assert kept_lines(path, 2) == path.read_text().splitlines()[:3]
    assert f"{path}: torn lines passed over: 1 (line 5)" in capsys.readouterr().err
    assert kept_lines(path, 0) == [] == kept_lines(tmp_path / "none", 5)


def test_a_run_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    model, dataset = tmp_path / "model", tmp_path / "data"
    model.write_text("weights")
    dataset.write_text("samples")
    config = FinetuneConfig(model=model, dataset=dataset, out=tmp_path / "run")
    inputs = [dataset, model]

    def reopen(**changes: object) -> None:
        changed = replace(config, **changes)
        open_training_run(changed, inputs, changed.overwrite)

    reopen(overwrite=True)  # with nothing there to overwrite
    (tmp_path / "run" / "config.yaml").unlink()
    (tmp_path / "run" / "provenance.json").unlink()
    reopen()
    again = command_line(FinetuneConfig, ["--config", str(tmp_path / "run" / "config.yaml")], "finetune")
    assert again == config, "a run folder's settings are those of the command line"
    (tmp_path / "run" / "training.jsonl").write_text('{"step": 0}\n')
    reopen()  # unfinished and the same
    reopen(checkpoint_every=7, threads=1)
    with pytest.raises(MonoError, match=r"other settings: learning_rate 0.0001 there, 0.5 now"):
        reopen(learning_rate=0.5)
    record = tmp_path / "run" / "provenance.json"
    whole = record.read_text()
    for torn in ({"inputs": [1]}, {"inputs": {}}, {"inputs": None}):
        record.write_text(json.dumps(json.loads(whole) | torn))
        with pytest.raises(MonoError, match=r"provenance\.json tells not of what"):
            reopen()
    record.write_text(json.dumps({name: value for name, value in json.loads(whole).items() if name != "commit"}))
    reopen()
    record.write_text(whole)
    dataset.write_text("others")
    with pytest.raises(MonoError, match="has changed"):
        reopen()
    dataset.write_text("samples")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(MonoError, match="finished run"):
        reopen()
    assert (tmp_path / "run" / "training.jsonl").is_file(), "nothing was overwritten"
    reopen(overwrite=True, learning_rate=0.5)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "training.jsonl").exists()
    (tmp_path / "run" / "config.yaml").unlink()
    (tmp_path / "run" / "adapter").mkdir()
    with pytest.raises(MonoError, match="adapter but no config"):
        reopen()
