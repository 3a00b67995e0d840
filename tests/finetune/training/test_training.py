"""The loop: both losses fall, both halves move, runs repeat, and a bad sample is named."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from benchmarks.tiny_base.shards import patchify  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora, part_of  # noqa: E402
from finetune.training.batches import EncodedSample, Said, cache_vision, collate  # noqa: E402
from finetune.training.encoding import told_apart_unasked  # noqa: E402
from finetune.training.loop import JointLoss, LoopSettings, draws, learning_rate_factor, train  # noqa: E402
from finetune.training.order import drawn_words, row_order  # noqa: E402
from tests.helpers.small_model import small_model, small_rows, stand_for_training  # noqa: E402

SETTINGS = LoopSettings(
    steps=30, batch_size=3, learning_rate=1e-2, warmup_steps=3, noise_draws=4, reasoning_dropout=0.0, validate_every=15
)


def _trained(out: Path, settings: LoopSettings = SETTINGS) -> tuple[object, dict[str, float], dict[str, torch.Tensor]]:
    out.mkdir()
    torch.manual_seed(0)
    loaded = small_model()
    rows = list(cache_vision(loaded.model, small_rows(loaded, 3), torch.device("cpu")))
    add_lora(loaded.model, LoraSettings(lora_rank=8, lora_alpha=16))
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if p.requires_grad}
    result = train(loaded.model, rows, rows, settings, loaded.processor.pad_id, out)
    return loaded, result, before


def test_both_losses_fall_and_both_halves_change(tmp_path: Path) -> None:
    loaded, result, before = _trained(tmp_path / "run")
    # The frozen random vocabulary matrix bounds how far text can fall here.
    assert result["last_validation_text_loss"] < result["first_validation_text_loss"] - 0.1
    assert result["last_validation_flow_loss"] < 0.7 * result["first_validation_flow_loss"]
    moved = {
        part_of(name)
        for name, parameter in loaded.model.named_parameters()  # type: ignore[attr-defined]
        if name in before and not torch.equal(parameter, before[name])
    }
    assert {"language model", "action expert", "action projections"} <= moved
    lines = [json.loads(line) for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "text_loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert all({"text_loss", "flow_loss", "learning_rate", "samples_per_s"} <= set(line) for line in steps)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=4, reasoning_dropout=0.5)
    first = _trained(tmp_path / "a", settings)[1]
    second = _trained(tmp_path / "b", settings)[1]
    assert first["last_validation_flow_loss"] == second["last_validation_flow_loss"]
    third = _trained(tmp_path / "c", replace(settings, seed=1))[1]
    assert third["last_validation_flow_loss"] != first["last_validation_flow_loss"]


def test_a_batch_of_mixed_lengths_gives_the_losses_of_single_rows() -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    assert len({len(row.input_ids) for row in rows}) > 1
    loss = JointLoss(loaded.model)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    with torch.no_grad():
        text, flow = loss(collate(rows, loaded.processor.pad_id), noise, times)
        singles = [
            loss(collate([row], loaded.processor.pad_id), noise[i : i + 1], times[i : i + 1])
            for i, row in enumerate(rows)
        ]
    assert float(text) == pytest.approx(np.mean([float(one[0]) for one in singles]), abs=1e-5)
    assert float(flow) == pytest.approx(np.mean([float(one[1]) for one in singles]), abs=1e-5)


def test_silent_rows_carry_no_text_loss() -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    loss = JointLoss(loaded.model)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    with torch.no_grad():
        text, _ = loss(collate(rows, loaded.processor.pad_id, ["all", "nothing", "nothing"]), noise, times)
        alone, _ = loss(collate(rows[:1], loaded.processor.pad_id), noise[:1], times[:1])
        silence, _ = loss(collate(rows, loaded.processor.pad_id, ["nothing"] * 3), noise, times)
    assert float(text) == pytest.approx(float(alone), abs=1e-5)
    assert float(silence) == 0.0


def test_cached_image_features_change_nothing() -> None:
    loaded = small_model()
    rows = small_rows(loaded, 3)
    cached = list(cache_vision(loaded.model, rows, torch.device("cpu"), chunk=2))
    loss = JointLoss(loaded.model)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    with torch.no_grad():
        fresh = loss(collate(rows, 0), noise, times)
        reused = loss(collate(cached, 0), noise, times)
    assert torch.allclose(torch.stack(fresh), torch.stack(reused), atol=1e-5)


def test_a_loss_that_is_no_number_names_the_samples(tmp_path: Path) -> None:
    loaded = small_model()
    rows = list(cache_vision(loaded.model, small_rows(loaded, 3), torch.device("cpu")))
    rows[1] = replace(rows[1], actions=rows[1].actions * float("nan"))
    add_lora(loaded.model, LoraSettings(lora_rank=2))
    with pytest.raises(MonoError, match="sample-1"):
        train(loaded.model, rows, rows[:1], SETTINGS, loaded.processor.pad_id, tmp_path)


def test_an_empty_training_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="without samples"):
        train(small_model().model, [], [], SETTINGS, 0, tmp_path)


def test_every_row_is_seen_once_per_epoch() -> None:
    order = row_order(10, 4, seed=0)
    seen = [index for _ in range(5) for index in next(order)]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_texts_of_a_frame_train_side_by_side_and_each_once_per_epoch() -> None:
    pairs = ["a"] * 5 + [""] * 4 + ["b"] * 7
    order = row_order(16, 4, 0, pairs, 3)
    epochs = [[row for _ in range(4) for row in next(order)] for _ in range(5)]
    met = set()
    for epoch in epochs:
        assert sorted(epoch) == list(range(16))
        runs = [list(group) for _, group in groupby(epoch, lambda row: pairs[row] or row)]
        assert all(len(run) <= 6 for run in runs) and sum(len(run) == 1 for run in runs) <= 7
        met |= {frozenset(run[:3]) for run in runs if len(run) >= 3}
    assert len(met) > 6, "which texts meet is drawn anew"


def test_behind_one_reading_of_their_picture_texts_have_the_losses_and_gradients_they_have_alone() -> None:
    loaded = small_model()
    device = torch.device("cpu")
    plain = list(cache_vision(loaded.model, small_rows(loaded, 6), device))
    # Two frames of two and three texts, and one alone; of a frame the same picture and past. One row is silent, and one
    # says all but what was asked.
    rows = [
        replace(plain[text], pair=pair, **shared(plain[of]))
        for text, pair, of in ((0, "a", 0), (1, "a", 0), (2, "", 2), (3, "b", 3), (4, "b", 3), (5, "b", 3))
    ]
    said: list[Said] = ["all", "all", "all", "all", "nothing", "unasked"]
    rows[5] = replace(rows[5], unasked_ids=rows[5].input_ids[:-3])
    add_lora(loaded.model, LoraSettings(lora_rank=4))
    stand_for_training(loaded.model, 0.05)
    noise, times = draws(len(rows), SETTINGS, 0, device)
    loss, found = JointLoss(loaded.model), []
    for packed in (False, True):
        batch = collate(rows, loaded.processor.pad_id, said, packed=packed)
        assert (batch.packing is not None) == packed
        losses = loss.rows(batch, noise, times)
        (losses.text.sum() + losses.flow.sum()).backward()
        gradients = {name: one.grad for name, one in loaded.model.named_parameters() if one.grad is not None}
        found.append((losses.table().detach(), {name: one.clone() for name, one in gradients.items()}))
        loaded.model.zero_grad()
        if batch.packing is not None:
            assert len(batch.packing.part) == 3 and batch.packing.part.numel() < batch.input_ids.numel()
    (alone, gradients), (together, same) = found
    assert torch.allclose(alone, together, atol=1e-5)
    assert alone[4, 0] == alone[5, 0] == 0.0 and bool((alone[:, 1] > 0.0).all())
    assert all(torch.allclose(gradients[name], same[name], atol=1e-5) for name in gradients)


def test_wishes_are_left_out_of_their_share_of_the_rows_that_have_one() -> None:
    asked, alone = (
        replace(row, unasked_ids=ids)
        for row, ids in zip(small_rows(small_model(), 2), (torch.ones(3), None), strict=True)
    )
    settings = LoopSettings(reasoning_dropout=0.1, wish_dropout=0.5)
    drawn = [0.05, 0.1, 0.5, 0.55, 0.99]
    assert drawn_words([asked] * 5, drawn, settings) == ["nothing", "unasked", "unasked", "all", "all"]
    assert drawn_words([alone] * 5, drawn, settings) == ["nothing", "all", "all", "all", "all"]
    assert drawn_words([asked] * 5, drawn, LoopSettings(reasoning_dropout=0.1))[1:] == ["all"] * 4
    assert drawn_words([asked] * 5, drawn, LoopSettings(reasoning_dropout=1.0, wish_dropout=1.0)) == ["nothing"] * 5


def test_a_wish_without_which_two_futures_have_the_same_words_is_kept() -> None:
    words = [torch.arange(1, length) for length in (5, 6, 7, 8)]
    rows = [
        replace(row, sample_id=name, input_ids=ids, unasked_ids=unasked)
        for row, name, ids, unasked in zip(
            small_rows(small_model(), 5),
            ("slow", "brisk", "stop", "usual", "slow-mirror"),
            (*words, words[0]),
            (torch.arange(10, 14), torch.arange(10, 14), words[3], None, torch.arange(10, 14)),
            strict=True,
        )
    ]
    kept = [row.sample_id for row in told_apart_unasked(rows) if row.unasked_ids is not None]
    assert kept == ["slow-mirror"], "the words of another, those of the usual future, and nobody's from this side"


def shared(row: EncodedSample) -> dict[str, object]:
    """What rows of one frame have in common."""
    return {"vision": row.vision, "grid_thw": row.grid_thw}


def test_learning_rate_warms_up_and_ends_at_a_hundredth() -> None:
    settings = LoopSettings(steps=100, warmup_steps=10)
    factors = [learning_rate_factor(step, settings) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.01, abs=0.002)


def test_patches_on_the_device_equal_the_driving_paths() -> None:
    from finetune.processing.images import ImageSettings, preprocess

    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    settings = ImageSettings(64 * 96, 64 * 96, resize_width_px=96, resize_height_px=64)
    expected, _ = preprocess([image], settings)
    assert np.allclose(patchify(torch.from_numpy(image)[None]).numpy(), expected, atol=1e-6)
