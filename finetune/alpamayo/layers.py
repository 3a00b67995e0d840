"""The forward pass through a decoder's layers, with gradient checkpointing that keeps keys and values.

transformers' own gradient checkpointing switches the cache off, and with it the keys and values that the action
expert reads: trained so, the expert drives blind. Here a layer hands its keys and values out beside its hidden
states, so that they stay while everything inside the layer is computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from finetune.alpamayo.cache import join_draws

_MOST_PROGRAMS = 64


class _LayerKVCache:
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


def run_layer(
    layer: Any,
    hidden: Tensor,
    rotary: tuple[Tensor, Tensor],
    mask: Tensor | None,
    past: tuple[Tensor, Tensor] | None,
    draws: int,
    image_mask: Tensor | None,
    features: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer: its output, deepstack features added, and its new keys and values (see :func:`forward_layers`)."""
    store = _LayerKVCache(past, draws)
    output = layer(hidden, attention_mask=mask, past_key_values=store, use_cache=True, position_embeddings=rotary)
    if image_mask is not None and features is not None:
        output = output + torch.zeros_like(output).masked_scatter(image_mask[..., None], features)
    return output, *store.new


def compiled_layer(device: torch.device | None = None, many_shapes: bool = False) -> Any:
    """:func:`run_layer` compiled; the layers of a decoder share one program per shape.

    Compiling takes about a minute and pays where a GPU waits for launches. Every new length of a batch compiles again,
    so pad to few lengths; with ``many_shapes`` what has changed once is left open, and few programs fit all. Where
    nothing can be compiled for the device, for want of a compiler, :func:`run_layer` itself is returned and the reason
    printed.
    """
    import torch._dynamo

    # The index that transformers gives each layer must not make each a program of its own.
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    # Beyond so many lengths a layer runs as it is.
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, _MOST_PROGRAMS)
    try:
        torch.compile(torch.negative)(torch.zeros(8, device=device))
    except Exception as error:  # noqa: BLE001 - whatever it is, training goes on without
        print(f"layers are not compiled ({str(error).strip().splitlines()[0][:200]})", flush=True)
        return run_layer
    return torch.compile(run_layer, dynamic=None if many_shapes else False)


def forward_layers(
    decoder: Any,
    hidden: Tensor,
    positions: Tensor,
    *,
    mask: Tensor | None = None,
    past: Sequence[tuple[Tensor, Tensor]] | None = None,
    draws: int = 1,
    image_mask: Tensor | None = None,
    deepstack: Sequence[Tensor] = (),
    checkpointed_layers: int = 0,
    body: Callable[..., tuple[Tensor, Tensor, Tensor]] = run_layer,
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
        checkpointed_layers: so many layers from the bottom are computed again in the backward pass; of them only
            inputs, keys and values stay in memory.
        body: :func:`run_layer`, or :func:`compiled_layer`; without gradients the former is taken.

    Returns:
        Last hidden states after the final norm, and per layer the new keys and values.
    """
    rotary = decoder.rotary_emb(hidden, positions)
    kept: list[tuple[Tensor, Tensor]] = []
    learning = torch.is_grad_enabled()
    body = body if learning else run_layer
    # Only dropout draws anything inside a layer, and only while training.
    random = decoder.training
    for index, layer in enumerate(decoder.layers):
        features = deepstack[index] if index < len(deepstack) else None
        arguments = (
            layer,
            hidden,
            rotary,
            mask,
            past[index] if past is not None else None,
            draws,
            image_mask if features is not None else None,
            features,
        )
        if index < checkpointed_layers and learning:
            hidden, keys, values = checkpoint(body, *arguments, use_reentrant=False, preserve_rng_state=random)
        else:
            hidden, keys, values = body(*arguments)
        kept.append((keys, values))
    return decoder.norm(hidden), kept
