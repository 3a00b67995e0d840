"""The terms of the joint loss: where their gradients go, what the xy term says, and that each is logged by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from collector.common.errors import MonoError  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora, part_of  # noqa: E402
from finetune.checkpoint import LoadedModel  # noqa: E402
from finetune.training.batches import EncodedSample, cache_vision, collate  # noqa: E402
from finetune.training.loop import train  # noqa: E402
from finetune.training.loss import JointLoss, draws, xy_errors  # noqa: E402
from finetune.training.settings import LoopSettings  # noqa: E402
from tests.helpers.small_model import arc, small_model, small_rows  # noqa: E402

SETTINGS = LoopSettings(steps=2, batch_size=3, noise_draws=2, reasoning_dropout=0.0)


@pytest.fixture
def loaded() -> LoadedModel:
    """A small model whose adapters already do something."""
    torch.manual_seed(1)
    model = small_model()
    add_lora(model.model, LoraSettings(lora_rank=2))
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    return model


def rows_with_history(loaded: LoadedModel) -> list[EncodedSample]:
    histories = [arc(curvature)[0] for curvature in (-0.15, 0.0, 0.2)]
    return [
        replace(row, history=torch.from_numpy(history).float())
        for row, history in zip(small_rows(loaded, 3), histories, strict=False)
    ]


def largest_gradients(loaded: LoadedModel, term: str, expert_gradient: bool) -> dict[str, float]:
    """Part -> largest gradient that one term of the loss leaves in it; -1 where there is none at all."""
    loaded.model.zero_grad(set_to_none=True)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    batch = collate(rows_with_history(loaded), loaded.processor.pad_id)
    losses = JointLoss(loaded.model, expert_gradient=expert_gradient, with_xy=True).rows(batch, noise, times)
    getattr(losses, term).sum().backward()
    found: dict[str, float] = {}
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            size = -1.0 if parameter.grad is None else float(parameter.grad.abs().max())
            found[part_of(name)] = max(found.get(part_of(name), -1.0), size)
    return found


@pytest.mark.parametrize("term", ["flow", "xy"])
def test_the_switch_cuts_the_experts_gradient_into_the_language_model(loaded: LoadedModel, term: str) -> None:
    on, off = (largest_gradients(loaded, term, expert_gradient) for expert_gradient in (True, False))
    assert on["language model"] > 0.0
    assert off["language model"] <= 0.0
    assert off["action expert"] == on["action expert"] > 0.0


def test_the_text_loss_teaches_the_language_model_either_way(loaded: LoadedModel) -> None:
    on, off = (largest_gradients(loaded, "text", expert_gradient) for expert_gradient in (True, False))
    assert on == off
    assert on["language model"] > 0.0 >= on["action expert"]


def integrate(speed_mps: float, actions: Any, space: Any) -> np.ndarray:
    """A unicycle step by step, in plain Python: (64, 2)."""
    x = y = yaw = 0.0
    path = []
    for a, k in actions:
        accel = float(a) * space.accel_std + space.accel_mean
        curvature = float(k) * space.curvature_std + space.curvature_mean
        faster = speed_mps + 0.1 * accel
        turned = yaw + curvature * (0.1 * speed_mps + 0.005 * accel)
        x += 0.05 * (speed_mps * np.cos(yaw) + faster * np.cos(turned))
        y += 0.05 * (speed_mps * np.sin(yaw) + faster * np.sin(turned))
        speed_mps, yaw = faster, turned
        path.append((x, y))
    return np.array(path)


def test_the_xy_loss_is_the_squared_distance_of_the_decoded_estimate(loaded: LoadedModel) -> None:
    rows = rows_with_history(loaded)
    batch = collate(rows, loaded.processor.pad_id)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    with torch.no_grad():
        losses = JointLoss(loaded.model, with_xy=True).rows(batch, noise, times)
        vision = loaded.model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = loaded.model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        for row in range(3):
            expected = []
            truth = integrate(4.0, batch.actions[row], loaded.config.action_space)
            for draw in range(2):
                t = times[row, draw]
                x_t = t * batch.actions[row] + (1 - t) * noise[row, draw]
                all_x = torch.zeros(3, 2, 64, 2)
                all_x[row, draw] = x_t
                v = loaded.model.velocity(prefix, all_x.flatten(0, 1), times.flatten()).view(3, 2, 64, 2)[row, draw]
                estimate = integrate(4.0, x_t + (1 - t) * v, loaded.config.action_space)
                expected.append(np.square(estimate - truth).mean())
            # The speed comes from a regularised fit to the history, within a millimetre per second of 4 m/s.
            assert float(losses.xy[row]) == pytest.approx(np.mean(expected), rel=2e-3)
    plain = JointLoss(loaded.model).rows(batch, noise, times)
    assert torch.allclose(plain.flow, losses.flow, atol=1e-6), "asking for xy changes no flow loss"
    assert not plain.xy.any()


def test_the_xy_loss_is_zero_at_the_truth_and_leads_back_to_it(loaded: LoadedModel) -> None:
    rows = rows_with_history(loaded)
    history, actions = (torch.stack([getattr(row, name) for row in rows]) for name in ("history", "actions"))
    space = loaded.model.action_space
    assert not xy_errors(space, history, actions[:, None].clone(), actions).any()
    estimate = (actions[:, None] + 0.1).requires_grad_(True)
    error = xy_errors(space, history, estimate, actions).sum()
    error.backward()
    # An early error moves every later waypoint, the last one hardly any.
    assert float(estimate.grad[:, :, 0].abs().min()) > 10 * float(estimate.grad[:, :, -1].abs().max()) > 0.0
    with torch.no_grad():
        nearer = xy_errors(space, history, estimate - 1e-3 * estimate.grad.sign(), actions).sum()
    assert float(nearer) < float(error.detach())


def test_rows_without_history_cannot_have_an_xy_loss(loaded: LoadedModel) -> None:
    batch = collate(small_rows(loaded, 1), loaded.processor.pad_id)
    noise, times = draws(1, SETTINGS, 0, torch.device("cpu"))
    with pytest.raises(MonoError, match="without history"):
        JointLoss(loaded.model, with_xy=True).rows(batch, noise, times)


def test_every_term_is_logged_by_name_and_weighs_what_it_is_told(loaded: LoadedModel, tmp_path: Path) -> None:
    rows = list(cache_vision(loaded.model, rows_with_history(loaded), torch.device("cpu")))
    start = {name: value.detach().clone() for name, value in loaded.model.named_parameters() if value.requires_grad}

    def moved(name: str, **changes: Any) -> dict[str, float]:
        with torch.no_grad():
            for key, value in loaded.model.named_parameters():
                if key in start:
                    value.copy_(start[key])
        (tmp_path / name).mkdir()
        settings = replace(SETTINGS, learning_rate=1e-3, **changes)
        train(loaded.model, rows, rows[:1], settings, loaded.processor.pad_id, tmp_path / name)
        change: dict[str, float] = {}
        for key, value in loaded.model.named_parameters():
            if key in start:
                size = float((value - start[key]).detach().abs().max())
                change[part_of(key)] = max(change.get(part_of(key), 0.0), size)
        return change

    only_text = moved("text", flow_weight=0.0)
    assert only_text["language model"] > 0.0 == only_text["action expert"]
    with_xy = moved("xy", text_weight=0.0, flow_weight=0.0, xy_weight=0.5)
    assert with_xy["language model"] > 0.0 and with_xy["action expert"] > 0.0
    expert_only = moved("expert", text_weight=0.0, expert_gradient=False)
    assert expert_only["action expert"] > 0.0 == expert_only["language model"]
    first = [json.loads((tmp_path / name / "training.jsonl").read_text().splitlines()[1]) for name in ("text", "xy")]
    assert "xy_loss" not in first[0] and first[1]["xy_loss"] > 0.0
    assert first[0]["flow_loss"] == pytest.approx(first[1]["flow_loss"], abs=2e-6), "logged without their weights"


def test_the_contrast_holds_a_path_against_the_text_of_another_future_of_its_frame(loaded: LoadedModel) -> None:
    plain = list(cache_vision(loaded.model, rows_with_history(loaded), torch.device("cpu")))
    one, two, three = (replace(row, vision=plain[0].vision, pair=pair) for row, pair in zip(plain, "aab", strict=False))
    rows = [one, two, three, replace(three, pair=""), replace(one, pair="b")]
    batch = collate(rows, loaded.processor.pad_id, ["all", "all", "all", "all", "nothing"])
    noise, times = draws(len(rows), LoopSettings(noise_draws=3), 0, torch.device("cpu"))
    with torch.no_grad():
        losses = JointLoss(loaded.model, contrast_margin=4.0).rows(batch, noise, times)
        swapped = collate(
            [replace(one, input_ids=two.input_ids), replace(two, input_ids=one.input_ids)], loaded.processor.pad_id
        )
        wrong = JointLoss(loaded.model).rows(swapped, noise[:2], times[:2])
        assert torch.equal(JointLoss(loaded.model).rows(batch, noise, times).contrast, torch.zeros(5))
    apart = float((one.actions - two.actions).square().mean())
    expected = torch.relu(min(apart, 4.0) + losses.flow[:2] - wrong.flow)
    assert bool((expected > 0.0).all())
    assert torch.allclose(losses.contrast[:2], expected, atol=1e-4)
    assert torch.equal(losses.contrast[2:], torch.zeros(3)), (
        "a row alone, or beside a silent one, has nothing to be held against"
    )


def test_the_same_words_are_no_contrast(loaded: LoadedModel) -> None:
    one, two, three = (
        replace(row, pair="a", unasked_ids=ids)
        for row, ids in zip(small_rows(loaded, 3), (torch.arange(1, 5),) * 3, strict=True)
    )
    pad = loaded.processor.pad_id
    partners = [
        collate([one, two, three], pad, said).partner for said in (["unasked"] * 3, ["unasked", "all", "unasked"])
    ]
    assert partners[0] is not None and partners[0].tolist() == [0, 1, 2]
    assert partners[1] is not None and partners[1].tolist() == [1, 2, 1]


def test_a_contrast_that_could_never_say_anything_is_refused() -> None:
    with pytest.raises(MonoError, match="texts_per_frame"):
        LoopSettings(contrast_weight=0.5)
    with pytest.raises(MonoError, match="margin of 0"):
        LoopSettings(contrast_weight=0.5, texts_per_frame=4, contrast_margin=0.0)
    with pytest.raises(MonoError, match="rows_per_pass 2 with 4 texts"):
        LoopSettings(contrast_weight=0.5, texts_per_frame=4, rows_per_pass=2)
    LoopSettings(contrast_weight=0.5, texts_per_frame=4, rows_per_pass=4)
