"""``alpamayo-mono evaluate`` on a model of a few thousand weights: every file it writes, and what goes wrong."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from closed_loop.cli import main as cli  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.dataset.schema import read_samples  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora, save_adapter  # noqa: E402
from finetune.alpamayo_policy import AlpamayoPolicy  # noqa: E402
from finetune.checkpoint import load_base, save_model  # noqa: E402
from finetune.evaluation import inference  # noqa: E402
from finetune.evaluation.command import NO_PICTURE, PLANS_FILE, EvaluateConfig, evaluate, fit_regressor  # noqa: E402
from finetune.evaluation.inference import SamplePrompts, plan_samples  # noqa: E402
from finetune.evaluation.metrics import MAX_DEVIATION, NON_FINITE, best_of_draws, path_errors  # noqa: E402
from finetune.policy import REFERENCE  # noqa: E402
from finetune.training.batches import observe  # noqa: E402
from tests.helpers.driven_samples import make_stretches, write_dataset  # noqa: E402
from tests.helpers.small_model import small_model, stand_for_training  # noqa: E402

VARIANTS = ["before", "after", "constant velocity", "constant yaw rate", "ego-only regressor"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder, an adapter folder, a dataset of 6 laps to judge and 6 to fit on."""
    root = tmp_path_factory.mktemp("evaluate")
    loaded = small_model()
    save_model(loaded, root / "model")
    (root / "model" / "generation_config.json").write_text('{"max_new_tokens": 6}')
    adapted = add_lora(loaded.model, LoraSettings(lora_rank=2, lora_alpha=4))
    stand_for_training(loaded.model, 0.1)
    save_adapter(adapted, root / "adapter", root / "model", "mono")
    samples = make_stretches(6, 3) + make_stretches(6, 3, "train", first_lap=20)
    return {"model": root / "model", "adapter": root / "adapter", "data": write_dataset(root / "data", samples)}


def config_of(places: dict[str, Path], out: Path, **settings: Any) -> EvaluateConfig:
    values: dict[str, Any] = {
        "model": places["model"],
        "adapter": places["adapter"],
        "dataset": places["data"],
        "out": out,
        "plots": False,
    }
    return EvaluateConfig(**{**values, **settings})


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / PLANS_FILE).read_text().splitlines()]


@pytest.fixture(scope="module")
def run(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command as typed, with three draws."""
    out = tmp_path_factory.mktemp("run")
    words = ["--model", places["model"], "--adapter", places["adapter"], "--dataset", places["data"], "--out", out]
    assert cli(["evaluate", *map(str, words), "--samples", "3", "--batch-size", "1"]) == 0
    return out


def test_everything_is_written(run: Path, places: dict[str, Path]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["variants"]) == VARIANTS
    assert {values["samples"] for values in metrics["variants"].values()} == {18}
    assert metrics["bootstrap"]["groups"] == 6 and metrics["ego_regressor"]["samples"] == 18
    assert {row["verdict"] for row in metrics["verdicts"]} <= {"better", "worse", "undecided"}
    assert [row["variant"] for row in csv.DictReader((run / "table.csv").open())] == VARIANTS
    for name in ("error_by_horizon", "error_by_curve", "consistency", "examples", "before_after", "min_ade"):
        assert (run / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    assert str(places["adapter"]) in json.loads((run / "provenance.json").read_text())["inputs"]
    for variant in ("before", "after"):
        best = metrics["variants"][variant]["min_ade_k"]["6.4s_m"]
        assert len(best) == 3 and best[0] >= best[1] >= best[2] > 0.0 and best[0] > best[2]
    still = metrics["variants"]["constant velocity"]
    assert still["min_ade_k"]["3s_m"] == pytest.approx([still["ade_3s_m"]] * 3)


def test_the_log_holds_what_the_tables_say(run: Path, places: dict[str, Path]) -> None:
    metrics, truth = json.loads((run / "metrics.json").read_text()), {s.id: s for s in read_samples(places["data"])}
    for variant in VARIANTS:
        own = [line for line in lines_of(run) if line["variant"] == variant]
        assert len({line["id"] for line in own}) == 18
        errors = [path_errors(line["poses"], truth[line["id"]].future_array())[MAX_DEVIATION] for line in own]
        assert np.mean(errors) == pytest.approx(metrics["variants"][variant][MAX_DEVIATION], abs=2e-3)


def test_it_judges_the_plans_that_would_be_driven(run: Path, places: dict[str, Path]) -> None:
    sample = next(iter(read_samples(places["data"], "val")))
    for variant, adapter in (("before", None), ("after", places["adapter"])):
        policy = AlpamayoPolicy(places["model"], adapter=adapter)
        driven, draws = policy.plan_draws([observe(sample, places["data"])], 3)[0]
        line = next(row for row in lines_of(run) if (row["variant"], row["id"]) == (variant, sample.id))
        assert np.abs(np.array(line["poses"]) - driven.poses).max() < 2e-3  # three digits in the log
        assert np.allclose(line["min_ade_m"], best_of_draws(draws, sample.future_array()), atol=2e-3)
        assert line["reasoning"] == driven.reasoning


def test_draws_depend_on_seed_and_number_alone(places: dict[str, Path]) -> None:
    samples = list(read_samples(places["data"], "val"))[:3]
    seen = [observe(sample, places["data"]) for sample in samples]
    loaded = load_base(places["model"], "cpu")
    # Random weights amplify rounding, which differs with the batch and the processor: in float64 it is out of the way.
    loaded.model.double()
    policy = AlpamayoPolicy(loaded, seed=4)
    many = [draws for _, draws in policy.plan_draws(seen, 3)]
    assert many[0].shape == (3, 64, 3)

    def gap(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.abs(one - other).max())

    fewer = policy.plan_draws(seen[1:2], 2)[0][1]
    other_seed = AlpamayoPolicy(loaded, seed=5).plan_draws(seen, 1)[1][1]
    same = max(gap(fewer[0], many[1][0]), gap(fewer[1], many[1][1]))
    assert 10.0 * same < min(gap(many[1][0], many[1][1]), gap(many[1][0], other_seed[0]), gap(many[0][0], many[1][0]))
    early = policy.plan_draws([replace(seen[0], stamp_ns=-200_000_000)], 1)  # before the zero of its clock
    assert np.isfinite(early[0][1]).all()


def test_pictures_are_encoded_once_and_say_the_same(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    samples = list(read_samples(places["data"], "val"))[:4]
    policy, reads = AlpamayoPolicy(places["model"], engine=REFERENCE), []  # as evaluate does
    monkeypatch.setattr(inference, "observe", lambda *args: reads.append(1) or observe(*args))
    kept = SamplePrompts(samples, places["data"], "mono", room_bytes=2**20)
    first, second = ([item for batch in plan_samples(policy, kept, 2, "t") for item in batch] for _ in range(2))
    assert len(first) == len(second) == 4 and len(reads) == 4
    for (index, (plan, _)), (_, (again, _)) in zip(first, second, strict=True):
        assert np.array_equal(plan.poses, again.poses)
        own = policy.encode(observe(samples[index], places["data"])).pixel_values
        assert torch.allclose(kept.get(index, policy)[1].pixel_values, own, atol=1e-6)
    cramped = SamplePrompts(samples, places["data"], "mono", room_bytes=0)
    assert cramped.get(0, policy) and cramped.get(0, policy) and len(reads) == 6


def test_a_missing_picture_and_a_nan_plan_cost_their_sample_only(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = make_stretches(6, 3)
    data = write_dataset(tmp_path / "data", samples)
    (data / samples[4].file_name).write_bytes(b"no picture")
    plan_draws = AlpamayoPolicy.plan_draws

    def broken(self: AlpamayoPolicy, observations: Any, draws: int, encoded: Any = None) -> Any:
        plans = plan_draws(self, observations, draws, encoded)
        for plan, _ in plans:
            if plan.stamp_ns == samples[10].stamp_ns:
                plan.poses[5] = np.nan
        return plans

    monkeypatch.setattr(AlpamayoPolicy, "plan_draws", broken)
    metrics = evaluate(config_of({**places, "data": data}, tmp_path / "run", adapter=None))
    assert metrics["variants"]["before"]["set_aside"] == {NO_PICTURE: 1, NON_FINITE: 1}
    assert {values["samples"] for values in metrics["variants"].values()} == {16}
    assert any(f"{NO_PICTURE} (1)" in note for note in metrics["notes"])
    assert "ego-only regressor" not in metrics["variants"] and "0 training" in metrics["ego_regressor"]["omitted"]
    assert metrics["verdicts"] == []
    logged = [line for line in lines_of(tmp_path / "run") if line["variant"] == "before"]
    reasons = {line["id"]: line.get("set_aside") for line in logged}
    assert reasons[samples[4].id] == NO_PICTURE and reasons[samples[10].id] == NON_FINITE and len(reasons) == 18


def test_a_crash_keeps_the_plans_made_before_it(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_draws, calls = AlpamayoPolicy.plan_draws, []

    def dies(self: AlpamayoPolicy, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return plan_draws(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(AlpamayoPolicy, "plan_draws", dies)
        with pytest.raises(RuntimeError):
            evaluate(config_of(places, tmp_path, batch_size=4))
    before = lines_of(tmp_path)
    assert [line["variant"] for line in before] == ["before"] * 8
    evaluate(config_of(places, tmp_path, adapter=None, limit=2))
    previous = (tmp_path / "plans.previous.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in previous] == before
    assert len(lines_of(tmp_path)) == 2 * 4


def test_the_regressor_never_sees_what_is_judged(places: dict[str, Path], tmp_path: Path) -> None:
    shifted = [
        sample if sample.split == "train" else sample.model_copy(update={"future": ((99.0, 99.0, 0.0),) * 64})
        for sample in read_samples(places["data"])
    ]
    other = write_dataset(tmp_path / "data", shifted)
    one, same = (fit_regressor(config_of({**places, "data": data}, tmp_path)) for data in (places["data"], other))
    assert np.array_equal(one.weights, same.weights) and one.samples == 18
    with pytest.raises(MonoError, match="know the answers"):
        fit_regressor(config_of(places, tmp_path, split="train"))


def test_one_sentence_for_what_does_not_fit(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = ["--model", str(places["model"])], ["--dataset", str(places["data"])]
    nowhere, nothing = ["--out", str(tmp_path / "run")], tmp_path / "nothing"
    nothing.mkdir()
    for words, sentence in (
        (model, "nothing to evaluate on"),
        ([*model, *data, "--clip", "abc"], "--clip without --data"),
        ([*model, *data, "--samples", "0"], "samples:=0"),
        ([*model, *data, "--split", "test"], "val or train"),
        ([*model, *data, "--adapter", str(nothing)], "holds no adapter"),
        ([*model, *data, "--cameras", "four"], "front"),
    ):
        assert cli(["evaluate", *words, *nowhere]) == 2
        printed = capsys.readouterr().err
        assert sentence in printed and "Traceback" not in printed, printed
    for name in ("metrics.json", "table.csv"):
        assert not (tmp_path / "run" / name).exists()
