"""Faults of the reference code that must not return; each test also shows that the faulty way gives another answer."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from collector.common.errors import MonoError  # noqa: E402
from finetune.alpamayo.action_space import ActionSpace  # noqa: E402
from finetune.alpamayo.configuration import RELEASED_ACTION_SPACE  # noqa: E402
from finetune.alpamayo.generation import generate  # noqa: E402
from finetune.checkpoint import LoadedModel, load_model  # noqa: E402
from finetune.processing.images import ImageSettings  # noqa: E402
from finetune.processing.processor import Processor  # noqa: E402
from tests.helpers.paths import GOLDEN  # noqa: E402
from tests.helpers.small_model import PromptBatch, prompt_batch  # noqa: E402

REASONINGS = (None, "The road bends left, so steer left.", "", "Keep lane.")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    model = load_model(GOLDEN / "tiny")
    images = ImageSettings(resize_width_px=96, resize_height_px=64)
    return replace(model, processor=Processor(model.config, model.processor.tokenizer, images))


@pytest.fixture(scope="module")
def batch(loaded: LoadedModel) -> PromptBatch:
    """Rows of different length, one of them cut off before its reasoning."""
    generator = np.random.default_rng(2)
    history = np.column_stack([np.linspace(-7.5, 0.0, 16), np.zeros(16), np.zeros(16)])
    image = generator.integers(0, 255, (36, 64, 3), dtype=np.uint8)
    rows = [loaded.processor.encode([image], history, text) for text in REASONINGS]
    return prompt_batch(rows, loaded.processor.pad_id)


def planar(xyz: np.ndarray, rot: np.ndarray) -> Any:
    yaw = np.arctan2(rot[..., 1, 0], rot[..., 0, 0])
    return torch.as_tensor(np.concatenate([xyz[..., :2], yaw[..., None]], axis=-1), dtype=torch.float32)


def test_a_row_without_reasoning_does_not_move_the_labels_of_the_next(loaded: LoadedModel, batch: PromptBatch) -> None:
    processor = loaded.processor
    for row, reasoning in enumerate(REASONINGS):
        learned = processor.tokenizer.decode(batch.input_ids[row][batch.label_mask[row]].tolist(), keep_special=True)
        assert learned == (f"{reasoning}<|cot_end|><|traj_future_start|>" if reasoning else "")
    # The reference pairs the n-th start with the n-th end of the whole batch.
    starts, ends = (
        (batch.input_ids.flatten() == index).nonzero().flatten().tolist()
        for index in (processor.cot_start_id, processor.cot_end_id)
    )
    paired = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    for start, end in zip(starts, ends, strict=False):
        paired[start + 1 : end + 1] = True
    paired = paired.view_as(batch.label_mask) & batch.attention_mask.bool()
    ours = batch.label_mask & (batch.input_ids != loaded.config.token_ids.future_start)
    assert not torch.equal(paired, ours), "the batch must be one on which pairing goes wrong"


def test_thinking_and_driving_change_nothing_they_were_given(loaded: LoadedModel, batch: PromptBatch) -> None:
    model = loaded.model
    settings = copy.deepcopy(model.vlm.generation_config.to_dict())
    before = {name: value.clone() for name, value in vars(batch).items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.randn(2 * len(REASONINGS), 64, 2, generator=torch.Generator().manual_seed(0))
    given = noise.clone()
    answers = []
    with torch.no_grad():
        for _ in range(2):
            vision = model.encode_images(batch.pixel_values, batch.grid_thw)
            prefix = model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
            keys = [layer.clone() for layer in prefix.keys]
            answer = generate(model, prefix, cot_end_id=loaded.processor.cot_end_id, max_new_tokens=5)
            answers.append((answer.tokens, model.sample_actions(answer.prefix, noise, 2)))
            assert all(torch.equal(ours, kept) for ours, kept in zip(prefix.keys, keys, strict=False))
    assert answers[0][0] == answers[1][0] and torch.equal(answers[0][1], answers[1][1])
    assert all(torch.equal(getattr(batch, name), value) for name, value in before.items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(noise, given)
    assert model.vlm.generation_config.to_dict() == settings


def test_driving_uses_the_constants_it_was_loaded_with() -> None:
    golden = np.load(GOLDEN / "tokenizers.npz")
    history, future = (planar(golden[f"{name}_xyz"], golden[f"{name}_rot"]) for name in ("hist", "fut"))
    rounded = ActionSpace(RELEASED_ACTION_SPACE, dtype=torch.bfloat16)
    # One space makes the targets and reads the samples: what was trained is what is driven.
    space = load_model(GOLDEN / "tiny", dtype=torch.bfloat16).model.action_space
    back = space.action_to_traj(history, space.traj_to_action(history, future))
    mixed = rounded.action_to_traj(history, space.traj_to_action(history, future))
    own, other = ((path[..., :2] - future[..., :2]).norm(dim=-1).mean() for path in (back, mixed))
    assert float(own) < float(other)


def test_a_placeholder_too_many_in_one_row_is_not_made_up_by_the_next(loaded: LoadedModel, batch: PromptBatch) -> None:
    """As many placeholders as features in all, one of them in the wrong row: filling in order would shift an image."""
    model, image = loaded.model, loaded.config.vlm["image_token_id"]
    ids = batch.input_ids.clone()
    first = int((ids[0] == image).nonzero()[-1, 0])
    second = int((ids[1] == image).nonzero()[-1, 0])
    ids[0, first + 1], ids[1, second] = image, int(ids[0, first + 1])
    vision = model.encode_images(batch.pixel_values, batch.grid_thw)
    assert int((ids == image).sum()) == len(vision.embeds), "the total must fit, or any check would do"
    with pytest.raises(MonoError, match="placeholders"):
        model.run_prefix(ids, batch.attention_mask, vision, batch.grid_thw)


def test_a_history_is_sixteen_poses_in_its_own_row(loaded: LoadedModel) -> None:
    for steps in (15, 17):
        with pytest.raises(MonoError, match="history"):
            loaded.processor.history_ids(np.zeros((steps, 3)))
