"""A random Alpamayo of a few thousand weights and rows for it: the real classes, small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetune.alpamayo.configuration import ActionInProjConfig, ExpertConfig
from finetune.checkpoint import LoadedModel
from finetune.processing.images import ImageSettings
from finetune.processing.processor import Encoded, pad_right
from finetune.training.batches import EncodedSample, pack_pixels
from tests.helpers.driven_samples import arc

TEXTS = (
    "The lane bends right ahead, so slow down and steer right to keep the lane.",
    "The lane is straight, so keep the speed and keep straight.",
    "The road bends sharply left now, so brake and turn left with the road.",
)


def small_model(hidden: int = 32) -> LoadedModel:
    """The same weights at every call; ``hidden`` is the language model's width."""
    from dataclasses import replace

    from benchmarks.tiny_base.architecture import build_tokenizer, tiny_config
    from benchmarks.tiny_base.new_model import new_model

    tokenizer = build_tokenizer(TEXTS, merges=60)
    config = tiny_config(tokenizer)
    text = {
        **config.vlm["text_config"],
        "hidden_size": hidden,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "mrope_section": [4, 2, 2],
    }
    vision: dict[str, Any] = {
        **config.vlm["vision_config"],
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    config = replace(
        config,
        vlm={**config.vlm, "text_config": text, "vision_config": vision},
        expert=ExpertConfig(hidden_size=32, intermediate_size=48, num_attention_heads=2, head_dim=16),
        action_in_proj=ActionInProjConfig(hidden_size=32),
    )
    images = ImageSettings(64 * 96, 64 * 96, resize_width_px=96, resize_height_px=64)
    return new_model(config, tokenizer, images=images, seed=3)


def stand_for_training(model: torch.nn.Module, spread: float) -> None:
    """Add to what would be trained the same random numbers at every call, of this spread."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(spread * torch.randn(parameter.shape, generator=generator))


def small_rows(loaded: LoadedModel, count: int) -> list[EncodedSample]:
    """Rows of random images, arcs and texts of different length."""
    generator = np.random.default_rng(5)
    rows = []
    for index in range(count):
        history, future = arc((-0.15, 0.0, 0.2)[index % 3])
        image = generator.integers(0, 255, (90, 160, 3), dtype=np.uint8)
        encoded = loaded.processor.encode([image], history, TEXTS[index % 3])
        silent = loaded.processor.encode([image], history, "")
        actions = loaded.model.action_space.traj_to_action(
            torch.from_numpy(history)[None], torch.from_numpy(future)[None]
        )[0]
        rows.append(
            EncodedSample(
                f"sample-{index}",
                encoded.input_ids,
                encoded.label_mask,
                silent.input_ids,
                actions.float(),
                encoded.grid_thw,
                pack_pixels(encoded.pixel_values),
            )
        )
    return rows


@dataclass(frozen=True)
class PromptBatch:
    """Prompts side by side, as a model reads them."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    label_mask: torch.Tensor
    pixel_values: torch.Tensor
    grid_thw: torch.Tensor


def prompt_batch(rows: Sequence[Encoded], pad_id: int) -> PromptBatch:
    """Prompts padded on the right, their images one after the other."""
    return PromptBatch(
        pad_right([row.input_ids for row in rows], pad_id),
        pad_right([torch.ones_like(row.input_ids) for row in rows], 0),
        pad_right([row.label_mask for row in rows], 0),
        torch.cat([row.pixel_values for row in rows]),
        torch.cat([row.grid_thw for row in rows]),
    )
