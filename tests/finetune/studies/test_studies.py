"""Sweep, counterfactual, the two sanity commands and the action range, as typed, on a real bag and a small model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("matplotlib")

from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.schema import Sample, read_samples  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.checkpoint import load_model, save_model  # noqa: E402
from finetune.processing.images import ImageSettings  # noqa: E402
from finetune.processing.processor import Processor  # noqa: E402
from finetune.studies.action_range_command import main as action_range  # noqa: E402
from finetune.studies.counterfactual import REASONINGS  # noqa: E402
from finetune.studies.counterfactual import main as counterfactual  # noqa: E402
from finetune.studies.overfit import main as overfit  # noqa: E402
from finetune.studies.parity import STAGES, compare_views, first_difference  # noqa: E402
from finetune.studies.parity import main as check_driving  # noqa: E402
from finetune.studies.stages import driving_view, plan_with_reasonings, training_views  # noqa: E402
from finetune.studies.sweep import main as sweep  # noqa: E402
from finetune.training.batches import observe  # noqa: E402
from tests.helpers.building import build  # noqa: E402
from tests.helpers.small_model import prompt_batch, small_model  # noqa: E402
from tests.helpers.synthetic_bag import COURSE, drive_course, write_bag  # noqa: E402

RECIPE = ["--steps", "6", "--batch_size", "2", "--learning_rate", "1e-2", "--warmup_steps", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder and a dataset."""
    root = tmp_path_factory.mktemp("studies")
    bag = write_bag(root / "bag", drive_course(COURSE * 2), lap_at=lambda t_s: 1 + int(t_s // 30))
    _, _, dataset = build(root, bag, stride=12, val_fraction=0.3)
    save_model(small_model(), root / "model", dtype=torch.float32)
    return root / "model", dataset


@pytest.fixture(scope="module")
def swept(places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two sizes."""
    out = tmp_path_factory.mktemp("sweep") / "sweep"
    sweep(_words(places, out, "--sizes", "4,8", *RECIPE))
    return out


def _words(places: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return ["--model", str(places[0]), "--dataset", str(places[1]), "--out", str(out), *more]


def _ids(folder: Path, split: str) -> set[str]:
    return {sample.id for sample in read_samples(folder) if sample.split == split}


def test_a_sweep_trains_nested_sizes_on_one_validation_set(swept: Path, places: tuple[Path, Path]) -> None:
    summary = json.loads((swept / "sweep.json").read_text())
    assert [row["samples"] for row in summary["sizes"]] == [0, 4, 8]
    assert [row.get("epochs") for row in summary["sizes"]] == [None, 3.0, 1.5]
    for row in summary["sizes"]:
        assert {"text_loss", "flow_loss", "ade_3s_m", "max_deviation_3s_m", "symptom_rate"} <= set(row)
    small, large = swept / "size_00004", swept / "size_00008"
    assert len(_ids(small / "dataset", "train")) == 4 and len(_ids(large / "dataset", "train")) == 8
    assert _ids(small / "dataset", "train") < _ids(large / "dataset", "train") < _ids(places[1], "train")
    assert _ids(small / "dataset", "val") == _ids(large / "dataset", "val") == _ids(places[1], "val")
    losses = [json.loads((folder / "result.json").read_text())["result"] for folder in (small, large)]
    assert losses[0]["flow_loss_before"] == losses[1]["flow_loss_before"]
    assert losses[0]["flow_loss"] != losses[1]["flow_loss"]
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len((swept / "sweep.csv").read_text().splitlines()) == 4


def test_a_sweep_goes_on_after_the_last_finished_size(
    swept: Path, places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def trained_ns(size: str) -> int:
        return (swept / size / "finetune" / "training.jsonl").stat().st_mtime_ns

    (swept / "size_00008" / "result.json").unlink()
    before = trained_ns("size_00004"), trained_ns("size_00008")
    first = json.loads((swept / "sweep.json").read_text())
    sweep(_words(places, swept, "--sizes", "4", "8", *RECIPE))
    output = capsys.readouterr().out
    assert "size 4: finished before" in output and "size 8: finished" not in output
    assert (trained_ns("size_00004"), trained_ns("size_00008")) == before  # its training was finished, its judging not
    (swept / "size_00008" / "result.json").unlink()
    shutil.rmtree(swept / "size_00008" / "finetune")
    sweep(_words(places, swept, "--sizes", "4", "8", *RECIPE))
    again = json.loads((swept / "sweep.json").read_text())
    # The same size trained twice is the same run.
    assert again["sizes"][2]["flow_loss"] == first["sizes"][2]["flow_loss"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--sizes", "4,800"], "11 training samples.*800.*--sizes 4\\.$"),
        (["--sizes", "4,many"], "whole numbers"),
        (["--sizes", "4,8", "--learning_rate", "1"], "other settings: learning_rate"),
        (["--model", "nowhere"], "no folder nowhere"),
    ],
)
def test_a_sweep_refuses_what_it_cannot_compare(
    swept: Path, places: tuple[Path, Path], more: list[str], sentence: str
) -> None:
    with pytest.raises(MonoError, match=sentence):
        sweep(_words(places, swept, *RECIPE, *more))


def test_a_forced_reasoning_is_what_the_model_would_have_read(places: tuple[Path, Path]) -> None:
    policy = AlpamayoPolicy(places[0], flow_steps=2)
    samples = list(read_samples(places[1], "train"))[:3]
    texts = ["The road bends left.", samples[1].reasoning, "Keep straight."]
    seen = [observe(sample, places[1]) for sample in samples]
    together = [plan for plan, _ in plan_with_reasonings(policy, seen, texts)]
    assert [plan.reasoning for plan in together] == texts
    for index, (observation, text) in enumerate(zip(seen, texts, strict=True)):
        alone = plan_with_reasonings(policy, [observation], [text])[0][0]
        assert np.abs(alone.poses - together[index].poses).max() < 1e-2
        row = policy.processor.encode([observation.frames["front"][-1]], observation.history, text)
        encoded = prompt_batch([row], policy.processor.pad_id)
        with torch.no_grad():
            vision = policy.model.encode_images(encoded.pixel_values, encoded.grid_thw)
            prefix = policy.model.run_prefix(encoded.input_ids, encoded.attention_mask, vision, encoded.grid_thw)
            actions = policy.model.sample_actions(prefix, torch.zeros(1, 64, 2), 2).double()
            history, v0 = torch.from_numpy(observation.history)[None], torch.tensor([observation.speed_mps])
            path = policy.model.action_space.action_to_traj(history, actions, v0=v0.double())[0].numpy()
        assert np.abs(path - alone.poses).max() < 1e-2
    silent = plan_with_reasonings(policy, seen, ["", "", ""])
    assert [plan.reasoning for plan, _ in silent] == ["", "", ""]
    # The policy is as it was: it thinks for itself again.
    assert policy.reasoning and policy.plan(seen[0]).reasoning not in texts


def test_the_counterfactual_measures_every_reasoning_before_and_after(
    swept: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    adapter = swept / "size_00008" / "finetune" / "adapter"
    counterfactual(_words(places, tmp_path, "--limit", "3", "--adapter", str(adapter)))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["variants"]) == ["before", "after"]
    for variant in metrics["variants"].values():
        assert list(variant) == list(REASONINGS)
        assert variant["true"]["moved_heading_3s_rad"] == 0.0 and variant["opposite"]["samples"] == 3
        assert variant["none"]["follows"] is None  # no reasoning names no side
    assert metrics["variants"]["before"] != metrics["variants"]["after"]
    with (tmp_path / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(REASONINGS) * 3
    assert {row["names"] for row in rows if row["reasoning"] == "opposite"} <= {"left", "right"}
    for row in rows:
        if row["reasoning"] in ("true", "opposite"):
            assert (row["names"] == row["true_direction"]) == (row["reasoning"] == "true")
    assert (tmp_path / "counterfactual.png").read_bytes().startswith(b"\x89PNG")


def test_driving_computes_what_training_did(
    swept: Path, places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = swept / "size_00008" / "finetune" / "adapter"
    assert check_driving(_words(places, tmp_path, "--samples", "3", "--adapter", str(adapter))) == 0
    assert "passed" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["first_difference"] is None and list(metrics["stages"]) == list(STAGES)
    assert metrics["stages"]["velocity"]["relative"] < 1e-5


def _first_difference(policy: AlpamayoPolicy, places: tuple[Path, Path]) -> str | None:
    samples: list[Sample] = list(read_samples(places[1], "train"))[:2]
    driven = [driving_view(policy, sample, places[1]) for sample in samples]
    trained = training_views(load_model(places[0]), samples, places[1], "mono", driven, policy.flow_steps)
    return first_difference(compare_views(driven, trained, [sample.id for sample in samples], 1e-4))


def test_each_kind_of_skew_is_found_at_its_stage(places: tuple[Path, Path]) -> None:
    def policy() -> AlpamayoPolicy:
        # One step: over several a random model turns rounding into anything.
        return AlpamayoPolicy(places[0], noise_temperature=1.0, flow_steps=1)

    assert _first_difference(policy(), places) is None

    smaller = policy()
    images = ImageSettings(64 * 64, 64 * 64, resize_width_px=64, resize_height_px=64)
    smaller.processor = Processor(smaller.processor.config, smaller.processor.tokenizer, images)
    assert _first_difference(smaller, places) == "pixels"

    cramped = policy()
    cramped.max_reasoning_tokens = 5
    assert _first_difference(cramped, places) == "tokens"

    for stage, place in (
        ("vision features", "vlm.model.visual.blocks.0.mlp.linear_fc1.weight"),
        ("prefix keys and values", "vlm.model.language_model.layers.0.self_attn.v_proj.weight"),
        ("velocity", "action_out_proj.weight"),
    ):
        other = policy()
        with torch.no_grad():
            dict(other.model.named_parameters())[place].mul_(1.05)
        assert _first_difference(other, places) == stage

    hasty = policy()
    sample = hasty.model.sample_actions
    hasty.model.sample_actions = lambda prefix, noise, steps: sample(prefix, 0.5 * noise, steps)  # type: ignore[method-assign]
    assert _first_difference(hasty, places) == "actions"


def test_overfitting_says_whether_it_worked(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(places, tmp_path, "--samples", "2", "--steps", "8", "--learning_rate", "1e-2", "--threads", "1")
    assert overfit(words) == 1
    assert "MISSED" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert not metrics["passed"] and not metrics["figures"]["text_loss"]["passed"]
    assert metrics["figures"]["flow_loss"]["reached"] < metrics["figures"]["flow_loss"]["before"]
    assert set(metrics["samples"]) == _ids(tmp_path / "samples", "train") == _ids(tmp_path / "samples", "val")
    loose = ["--most_text_loss", "1e3", "--most_flow_loss", "1e3", "--most_ade_3s_m", "1e3"]
    # A random model repeats no reasoning, however loose the losses are.
    assert overfit([*words, *loose]) == 1
    with pytest.raises(MonoError, match="12 samples of the 11"):
        overfit(_words(places, tmp_path, "--samples", "12"))
    mine = tmp_path / "mine" / "training"
    mine.mkdir(parents=True)
    with pytest.raises(MonoError, match="not empty: it holds training"):
        overfit(_words(places, mine.parent, "--samples", "2"))
    assert mine.is_dir()


def test_the_action_range_of_a_dataset_and_a_model(places: tuple[Path, Path], tmp_path: Path) -> None:
    action_range([str(places[1]), "--model", str(places[0]), "--limit", "4", "--out", str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    clips = {row["limit"]: row for row in metrics["clip"]}
    assert clips[None]["largest_6.4s_m"] < 0.1  # the round trip alone
    assert clips[3.0]["mean_3s_m"] > clips[5.0]["mean_3s_m"] > clips[8.0]["mean_3s_m"]
    assert sum(metrics["bins"]["flow loss before"]) == pytest.approx(1.0)
    assert len(metrics["models"]["before"]["euler"]) == 8
    assert (tmp_path / "action_range.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MonoError, match="--adapter without --model"):
        action_range([str(places[1]), "--adapter", "none", "--out", str(tmp_path)])


def test_a_dataset_without_bends_has_no_opposite(places: tuple[Path, Path], tmp_path: Path) -> None:
    from finetune.studies.subsets import write_subset

    straight = [replace_label(sample) for sample in read_samples(places[1], "train")][:2]
    write_subset(places[1], tmp_path / "straight", straight, straight, "test")
    with pytest.raises(MonoError, match="bends"):
        counterfactual(["--model", str(places[0]), "--dataset", str(tmp_path / "straight"), "--out", str(tmp_path)])


def replace_label(sample: Sample) -> Sample:
    future = tuple((0.4 * (step + 1), 0.0, 0.0) for step in range(len(sample.future)))
    return sample.model_copy(update={"future": future})
