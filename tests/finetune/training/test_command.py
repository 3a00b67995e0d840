"""Finetune and evaluate as a person types them: a real bag, the tiny base, an adapter that drives differently."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from collector.common.errors import MonoError  # noqa: E402
from collector.common.run_folder import hash_path  # noqa: E402
from collector.dataset.builder import main as build  # noqa: E402
from collector.dataset.schema import METADATA_FILE, read_samples  # noqa: E402
from finetune import TINY_BASE  # noqa: E402
from finetune.adapters.card import add_evaluation  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.evaluation.command import main as evaluate  # noqa: E402
from finetune.lora_finetune import main as finetune  # noqa: E402
from finetune.training.batches import observe  # noqa: E402
from tests.helpers.driven_samples import make_stretches, write_dataset  # noqa: E402
from tests.helpers.synthetic_bag import COURSE, drive_course, write_bag  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dataset and training run of a few steps."""
    root = tmp_path_factory.mktemp("finetune")
    laps = write_bag(root / "bag", drive_course(COURSE * 4), lap_at=lambda t_s: 1 + int(t_s // 30))
    build(["--bags", str(laps), "--out", str(root / "dataset"), "--stride", "24", "--val-fraction", "0.3"])
    finetune(
        [
            "--model",
            str(TINY_BASE),
            "--dataset",
            str(root / "dataset"),
            "--out",
            str(root / "run"),
            "--lora_rank",
            "4",
            "--lora_alpha",
            "8",
            "--steps",
            "4",
            "--batch_size",
            "4",
            "--learning_rate",
            "5e-3",
            "--warmup_steps",
            "1",
        ]
    )
    return root / "dataset", root / "run"


def test_the_run_folder_says_what_ran(trained: tuple[Path, Path]) -> None:
    dataset, run = trained
    metrics = json.loads((run / "metrics.json").read_text())
    samples = list(read_samples(dataset))
    assert metrics["train_samples"] + metrics["validation_samples"] == len(samples)
    assert metrics["trainable_parameters"]["language model"] > 0
    assert metrics["trainable_parameters"]["action expert"] > 0
    for name in ("config.yaml", "provenance.json", "training.jsonl", "adapter/adapter_model.safetensors"):
        assert (run / name).is_file(), name
    assert json.loads((run / "adapter" / "alpamayo_mono.json").read_text())["cameras"] == "mono"


def test_the_adapter_changes_the_plan_and_repeats_it(trained: tuple[Path, Path]) -> None:
    dataset, run = trained
    sample = next(iter(read_samples(dataset)))
    observation = observe(sample, dataset)
    base = AlpamayoPolicy(TINY_BASE).plan(observation)
    first, second = (AlpamayoPolicy(TINY_BASE, adapter=run / "adapter").plan(observation) for _ in range(2))
    assert np.abs(first.poses - base.poses).max() > 0.01
    assert np.array_equal(first.poses, second.poses)
    assert first.reasoning == second.reasoning


def test_evaluation_sets_before_beside_after_on_the_same_samples(trained: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run = trained
    evaluate(
        [
            "--model",
            str(TINY_BASE),
            "--adapter",
            str(run / "adapter"),
            "--dataset",
            str(dataset),
            "--out",
            str(tmp_path),
            "--limit",
            "6",
        ]
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    baselines = ["constant velocity", "constant yaw rate", "ego-only regressor"]
    assert list(metrics["variants"]) == ["before", "after", *baselines]
    assert len({variant["samples"] for variant in metrics["variants"].values()}) == 1
    for variant in ("before", "after"):
        assert 0.0 <= metrics["variants"][variant]["consistency"]["coverage"] <= 1.0
    lines = [json.loads(line) for line in (tmp_path / "plans.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines if line["variant"] == "before"} == {
        line["id"] for line in lines if line["variant"] == "after"
    }
    sample = next(iter(read_samples(dataset, "val")))
    driven = AlpamayoPolicy(TINY_BASE).plan(observe(sample, dataset))
    judged = next(line for line in lines if line["id"] == sample.id)
    assert np.abs(np.array(judged["poses"]) - driven.poses).max() < 1e-2, "what is judged must be what is driven"
    assert "variant" in (tmp_path / "table.csv").read_text().splitlines()[0]
    card = (run / "adapter" / "README.md").read_text()
    assert "None yet" not in card and "| after | " in card and "## Settings" in card
    assert add_evaluation(run / "adapter", {**metrics, "samples": 12345}, "something else")
    again = (run / "adapter" / "README.md").read_text()
    assert again.count("## Evaluation") == 1 and "12345 samples of something else" in again
    assert again.partition("## Evaluation")[0] == card.partition("## Evaluation")[0]
    assert again.partition("## Settings")[2] == card.partition("## Settings")[2]


def test_a_second_dataset_trains_beside_the_first(trained: tuple[Path, Path], tmp_path: Path) -> None:
    first, samples = trained[0], [*make_stretches(2, 2, "train"), *make_stretches(1, 2)]
    second, link = write_dataset(tmp_path / "second", samples), tmp_path / "link"
    link.symlink_to(second)
    words = ["--model", str(TINY_BASE), "--dataset", str(first), "--steps", "1", "--batch_size", "2", "--more_datasets"]
    finetune([*words, str(second), "--out", str(tmp_path / "run")])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    alone = Counter(sample.split for sample in read_samples(first))
    assert metrics["train_samples"] == alone["train"] + 4
    assert metrics["validation_samples"] == alone["val"] + 2
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    for dataset in (first, second):
        assert f"sha256 {hash_path(dataset / METADATA_FILE)}" in card
    with pytest.raises(MonoError, match="finished run with these settings"):
        finetune([*words, str(link), "--out", str(tmp_path / "run")])
    with pytest.raises(MonoError, match="other settings: more_datasets"):
        finetune([*words[:-1], "--out", str(tmp_path / "run")])
    with pytest.raises(MonoError, match="named twice"):
        finetune([*words, str(first), "--out", str(tmp_path / "twice")])
    shutil.copytree(second, tmp_path / "copy")
    with pytest.raises(MonoError, match=r"copy holds the same samples as .*second"):
        finetune([*words, str(second), str(tmp_path / "copy"), "--out", str(tmp_path / "twice")])


def test_cameras_a_front_dataset_cannot_give_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MonoError, match=r"four.*mono-padded"):
        finetune(["--model", str(TINY_BASE), "--dataset", str(trained[0]), "--out", str(tmp_path), "--cameras", "four"])


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match=str(tmp_path)):
        finetune(["--model", str(TINY_BASE), "--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "run")])
