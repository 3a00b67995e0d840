"""One walk through a decoder's layers that may forget what it computed, except for keys and values.

transformers' own gradient checkpointing switches the cache off, and with it the keys and values that the action
expert reads: trained so, the expert drives blind. Here a layer hands its keys and values out beside its hidden
states, so that they stay while everything inside the layer is computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from finetune.alpamayo.cache import join_draws


class _LayerStore:
    """Stands where transformers' attention expects a cache: joins one layer's past with its new columns."""

    def __init__(self, past: tuple[Tensor, Tensor] | None, draws: int) -> None:
        self._past = past
        self._draws = draws
        self.new: tuple[Tensor, Tensor]

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.new = keys, values
        if self._past is None:
            return keys, values
        return join_draws(self._past[0], keys, self._draws), join_draws(self._past[1], values, self._draws)


def walk(
    decoder: Any,
    hidden: Tensor,
    positions: Tensor,
    *,
    mask: Tensor | None = None,
    past: Sequence[tuple[Tensor, Tensor]] | None = None,
    draws: int = 1,
    image_mask: Tensor | None = None,
    deepstack: Sequence[Tensor] = (),
    recompute: int = 0,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Every layer of a Qwen3-VL text decoder, differentiable.

    Args:
        decoder: transformers' ``Qwen3VLTextModel``, possibly with adapters inside.
        hidden: (B, L, D) embeddings.
        positions: (3, B, L) rotary positions.
        mask: additive attention mask (B, 1, L, columns); None is causal among the new columns.
        past: per layer keys and values (B/K, heads, P, d) that are seen before the new columns.
        draws: K, rows of ``hidden`` that share one row of the past.
        image_mask: (B, L) where image tokens are.
        deepstack: image features (n, D), added after the first layers.
        recompute: so many layers from the bottom are computed again in the backward pass; of them only inputs,
            keys and values stay in memory.

    Returns:
        Last hidden states after the final norm, and per layer the new keys and values.
    """
    rotary = decoder.rotary_emb(hidden, positions)
    kept: list[tuple[Tensor, Tensor]] = []

    def run(layer: Any, index: int, hidden: Tensor, *past_columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        store = _LayerStore((past_columns[0], past_columns[1]) if past_columns else None, draws)
        output = layer(
            hidden, attention_mask=mask, past_key_values=store, use_cache=True, position_embeddings=rotary
        )
        if index < len(deepstack):
            output = output + torch.zeros_like(output).masked_scatter(image_mask[..., None], deepstack[index])  # type: ignore[index]
        return output, *store.new

    for index, layer in enumerate(decoder.layers):
        columns = past[index] if past is not None else ()
        if index < recompute and torch.is_grad_enabled():
            # Nothing random happens inside unless LoRA has dropout, whose generator state must then be kept.
            result = checkpoint(run, layer, index, hidden, *columns, use_reentrant=False)
        else:
            result = run(layer, index, hidden, *columns)
        hidden, keys, values = result
        kept.append((keys, values))
    return decoder.norm(hidden), kept
