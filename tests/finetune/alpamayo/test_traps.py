"""Traps of the reference code, each with the wrong variant built beside the right one: the assertions tell them apart.

A batch of rows of different length must give, row by row, the losses and the expert's prediction of its single rows;
the 64 waypoints must see each other; the expert must be trained on prefixes with the reasoning, as it drives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import finetune.alpamayo.model as model_module  # noqa: E402
from finetune.adapters.lora import LoraSettings, add_lora  # noqa: E402
from finetune.alpamayo.generation import generate  # noqa: E402
from finetune.alpamayo.model import AlpamayoR1  # noqa: E402
from finetune.checkpoint import LoadedModel  # noqa: E402
from finetune.training.batches import Said, cache_vision, collate  # noqa: E402
from finetune.training.loop import train  # noqa: E402
from finetune.training.loss import JointLoss, draws  # noqa: E402
from finetune.training.settings import LoopSettings  # noqa: E402
from tests.helpers.small_model import TEXTS, arc, small_model, small_rows  # noqa: E402

SETTINGS = LoopSettings(noise_draws=2)
# The small model is random and its expert timid: what is wrong shows as hundreds of times the tolerance or only tens.
RIGHT, WRONG = 1e-5, 1e-4


def predictions(loaded: LoadedModel, rows: list[Any], noise: Any, times: Any) -> tuple[Any, Any]:
    """Losses (B, 3) and the expert's velocity (B, K, 64, 2)."""
    batch = collate(rows, loaded.processor.pad_id)
    model = loaded.model
    with torch.no_grad():
        losses = JointLoss(model).rows(batch, noise, times)
        vision = model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        velocity = model.velocity(prefix, noise.flatten(0, 1), times.flatten()).view_as(noise)
    return losses.table(), velocity


def gap_between_batch_and_singles(loaded: LoadedModel) -> tuple[float, float]:
    """Largest difference of a row's losses, and of its velocity, in a mixed batch and alone."""
    # The longest row comes second: what is cut or padded by the last one then differs from either neighbour.
    rows = [small_rows(loaded, 3)[index] for index in (2, 0, 1)]
    lengths = [len(row.input_ids) for row in rows]
    assert len(set(lengths)) == 3 and lengths[1] == max(lengths)
    noise, times = draws(3, SETTINGS, 0, torch.device("cpu"))
    losses, velocity = predictions(loaded, rows, noise, times)
    apart = [predictions(loaded, [row], noise[i : i + 1], times[i : i + 1]) for i, row in enumerate(rows)]
    return (
        float((losses - torch.cat([one[0] for one in apart])).abs().max()),
        float((velocity - torch.cat([one[1] for one in apart])).abs().max()),
    )


def test_a_mixed_batch_gives_each_row_its_own_loss_and_prediction() -> None:
    assert max(gap_between_batch_and_singles(small_model())) < RIGHT


def padding_visible(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Any, input_ids: Any, filled: Any, positions: Any, following: Any) -> Any:
        visible, position = right(self, input_ids, filled, positions, following)
        return torch.ones_like(visible), position

    return wrong


def one_crop_for_the_batch(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Any, input_ids: Any, filled: Any, positions: Any, following: Any) -> Any:
        visible, position = right(self, input_ids, filled, positions, following)
        return visible[-1:].expand_as(visible), position

    return wrong


def one_position_for_the_batch(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Any, input_ids: Any, filled: Any, positions: Any, following: Any) -> Any:
        visible, position = right(self, input_ids, filled, positions, following)
        return visible, position[-1:].expand_as(position)

    return wrong


@pytest.mark.parametrize("variant", [padding_visible, one_crop_for_the_batch, one_position_for_the_batch])
def test_a_wrong_start_of_the_expert_shows_in_a_mixed_batch(
    variant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AlpamayoR1, "expert_start", variant(AlpamayoR1.expert_start))
    assert min(gap_between_batch_and_singles(small_model())) > WRONG


def reach_of_the_last_waypoint(loaded: LoadedModel) -> float:
    """How much the first waypoint's velocity moves with the last waypoint's action, in training mode."""
    row = small_rows(loaded, 1)
    batch = collate(row, loaded.processor.pad_id)
    model = loaded.model.train()
    vision = model.encode_images(batch.pixel_values, batch.grid_thw)
    prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
    x = torch.zeros(1, 64, 2, requires_grad=True)
    model.velocity(prefix, x, torch.tensor([0.3]))[0, 0].sum().backward()
    return float(x.grad[0, -1].abs().max())


def test_waypoints_see_each_other_and_a_causal_mask_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reach_of_the_last_waypoint(small_model()) > 0.0
    right = model_module.forward_layers

    def causal(decoder: Any, hidden: Any, positions: Any, *, mask: Any = None, **others: Any) -> Any:
        if mask is not None:
            count = hidden.shape[1]
            future = torch.ones(count, count, dtype=torch.bool).triu(1)
            mask = mask.clone()
            mask[..., -count:].masked_fill_(future, torch.finfo(mask.dtype).min)
        return right(decoder, hidden, positions, mask=mask, **others)

    monkeypatch.setattr(model_module, "forward_layers", causal)
    assert reach_of_the_last_waypoint(small_model()) == 0.0


def test_the_training_prefix_is_the_one_driven_with_and_one_without_reasoning_is_not() -> None:
    loaded = small_model()
    model, processor = loaded.model, loaded.processor
    row = small_rows(loaded, 1)[0]
    image = np.random.default_rng(5).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    asked = processor.encode([image], arc(-0.15)[0], None)
    reasoning = row.input_ids[len(asked.input_ids) :]
    assert torch.equal(row.input_ids[: len(asked.input_ids)], asked.input_ids)
    assert processor.decode_reasoning(reasoning.tolist()) == TEXTS[0]
    noise, times = draws(1, SETTINGS, 0, torch.device("cpu"))

    def trained_with(said: Said) -> Any:
        batch = collate([row], processor.pad_id, [said])
        vision = model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        return model.velocity(prefix, noise[0], times[0])

    with torch.no_grad():
        ids = asked.input_ids[None]
        vision = model.encode_images(asked.pixel_values, asked.grid_thw)
        prefix = model.run_prefix(ids, torch.ones_like(ids), vision, asked.grid_thw)
        answer = generate(
            model,
            prefix,
            cot_end_id=processor.cot_end_id,
            max_new_tokens=len(reasoning) + 2,
            forced=[reasoning.tolist()],
        )
        driven = model.velocity(answer.prefix, noise[0], times[0])
        assert float((trained_with("all") - driven).abs().max()) < 1e-4
        assert float((trained_with("nothing") - driven).abs().max()) > WRONG


def reasonings_trained_on(monkeypatch: pytest.MonkeyPatch, out: Path, reasoning_dropout: float) -> list[bool]:
    """For each row that the language model read while training, whether its prefix held the sample's own reasoning."""
    loaded = small_model()
    rows = list(cache_vision(loaded.model, small_rows(loaded, 3), torch.device("cpu")))
    add_lora(loaded.model, LoraSettings(lora_rank=2))
    held: list[bool] = []
    right = AlpamayoR1.run_prefix

    def spy(self: Any, input_ids: Any, attention_mask: Any, *others: Any) -> Any:
        prefix = right(self, input_ids, attention_mask, *others)
        for ids, visible in zip(input_ids, prefix.visible, strict=False):
            seen = ids[visible].tolist()
            start = (
                len(seen) - seen[::-1].index(loaded.processor.cot_start_id)
                if (loaded.processor.cot_start_id in seen)
                else len(seen)
            )
            held.append(loaded.processor.decode_reasoning(seen[start:]) in TEXTS)
        return prefix

    monkeypatch.setattr(AlpamayoR1, "run_prefix", spy)
    settings = LoopSettings(steps=2, batch_size=3, noise_draws=1, reasoning_dropout=reasoning_dropout)
    out.mkdir()
    train(loaded.model, rows, [], settings, loaded.processor.pad_id, out)
    monkeypatch.undo()
    return held


def test_training_variants_the_expert_on_reasonings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasonings_trained_on(monkeypatch, tmp_path / "with", 0.0) == [True] * 6
    assert reasonings_trained_on(monkeypatch, tmp_path / "without", 1.0) == [False] * 6
