"""A Qwen3-VL text decoder as the plain arithmetic it is: reading, writing and driving without gradients.

transformers wraps each layer in decorators, mask makers, cache objects and norms of six operations; around the small
matrices of one plan these cost more than the matrices. :class:`Decoder` computes the same from the same weights.
Training keeps transformers' modules (:mod:`finetune.alpamayo.layers`), against which this one is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.alpamayo.cache import LayerColumns
from finetune.alpamayo.placement import is_packed


def pack_linears(decoder: Any) -> None:
    """Lay matrices with the same input side by side in memory, so that :class:`Decoder` multiplies by them at once.

    The parameters stay the module's own, as views of the joined matrix: no weight is held twice, and what is copied
    into one is in the joined one too. Moving the module to another device undoes it.
    """
    for layer in decoder.layers:
        for group in linear_groups(layer):
            if all(type(linear) is nn.Linear for linear in group) and joined_weight(group) is None:
                whole = torch.cat([linear.weight.detach() for linear in group])
                for linear, part in zip(group, whole.split([len(linear.weight) for linear in group]), strict=True):
                    linear.weight.data = part


def linear_groups(layer: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The linear layers with one input: queries, keys and values; gate and up."""
    attention, mlp = layer.self_attn, layer.mlp
    return (attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)


def joined_weight(linears: Sequence[Any]) -> Tensor | None:
    """The matrix of plain layers whose weights lie side by side; None for others, such as adapted ones."""
    if any(type(linear) is not nn.Linear or linear.bias is not None for linear in linears):
        return None
    weights = [linear.weight.detach() for linear in linears]
    first, rows, place = weights[0], 0, weights[0].data_ptr()
    for weight in weights:
        if weight.data_ptr() != place or not weight.is_contiguous():
            return None
        rows, place = rows + len(weight), place + weight.nbytes
    # Neighbours may be so by accident: only what one storage holds is one matrix.
    if (first.storage_offset() + rows * first.shape[1]) * first.itemsize > first.untyped_storage().nbytes():
        return None
    joined: Tensor = first.as_strided((rows, first.shape[1]), (first.shape[1], 1))
    return joined


def packed_product(linears: Sequence[Any]) -> Callable[[Tensor], Tensor] | None:
    """The outputs side by side of packed layers; None for others."""
    return _side_by_side(linears) if all(map(is_packed, linears)) else None


def _side_by_side(linears: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    if len(linears) == 1:
        return linears[0]  # type: ignore[no-any-return]
    return lambda x: torch.cat([linear(x) for linear in linears], dim=-1)


def _product(linears: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """The layers' outputs side by side, of one input."""
    weight = joined_weight(linears)
    if weight is not None:
        return lambda x: functional.linear(x, weight)
    return _side_by_side(linears)


@lru_cache
def _floor(length: float) -> Tensor:
    return torch.tensor(length)


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32 inside, as Qwen3-VL's.

    Args:
        weight: (D,), or (heads, D) for norms of several heads at once.
        eps: under the root.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight, self._eps, self._shape = weight.detach(), eps, weight.shape[-1:]
        # PyTorch has no such kernel for a CPU, but the root of a sum of two squares: |x| and sqrt(D eps).
        self._by_length = weight.device.type == "cpu" and weight.dtype == torch.float32
        if self._by_length:
            self._weight = self._weight * math.sqrt(weight.shape[-1])
            self._floor = _floor(math.sqrt(weight.shape[-1] * eps))

    def __call__(self, x: Tensor) -> Tensor:
        """Same shape and precision."""
        if self._by_length:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return x.div(length.hypot_(self._floor)).mul_(self._weight)
        return functional.rms_norm(x, self._shape, None, self._eps) * self._weight


class _Layer:
    """What one layer's arithmetic needs, looked up once."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.dim = attention.head_dim
        queries, keys = attention.q_norm, attention.k_norm
        self.heads, self.kv_heads = attention.config.num_attention_heads, attention.config.num_key_value_heads
        table = [queries.weight.expand(self.heads, -1), keys.weight.expand(self.kv_heads, -1)]
        self.head_norm = RMSNorm(torch.cat(table), queries.variance_epsilon)
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.norms = [RMSNorm(norm.weight, norm.variance_epsilon) for norm in norms]
        self.qkv, self.gate_up = (_product(group) for group in linear_groups(layer))
        self.out, self.down = _product([attention.o_proj]), _product([mlp.down_proj])
        self.activation = mlp.act_fn


class Decoder:
    """The layers of a decoder; made for one pass or one plan, since it looks the weights up when it is made.

    Args:
        module: transformers' ``Qwen3VLTextModel``, possibly with adapters inside, which are then called as they are.
    """

    def __init__(self, module: Any) -> None:
        self._layers = [_Layer(layer) for layer in module.layers]
        self._norm = RMSNorm(module.norm.weight, module.norm.variance_epsilon)
        self._angles = module.rotary_emb

    @torch.no_grad()
    def rotary(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (B, n, 1, d) of rotary positions (3, B, n), in the precision of ``like``."""
        cos, sin = self._angles(like, positions)
        # Rotating swaps the halves and negates the first: the sign is put into the sine.
        first, second = sin.chunk(2, dim=-1)
        return cos[:, :, None], torch.cat([-first, second], dim=-1)[:, :, None]

    @torch.no_grad()
    def run(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        columns: Sequence[LayerColumns],
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        image_places: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
    ) -> Tensor:
        """Last hidden states after the final norm.

        Args:
            hidden: (B, n, D) embeddings.
            rotary: of :meth:`rotary`.
            columns: opened for the n new ones, see :meth:`finetune.alpamayo.cache.Columns.open`.
            mask: of :func:`additive_mask`, as wide as what is seen.
            causal: the new tokens are the first ones, and none sees those after it; without ``mask``.
            image_places: (m,) places of image tokens among the B * n.
            deepstack: image features (m, D), added after the first layers.
        """
        batch, count, width = hidden.shape
        hidden = hidden.reshape(-1, width)
        cos, sin = rotary
        for index, (layer, (new_keys, new_values, keys, values)) in enumerate(zip(self._layers, columns, strict=True)):
            qkv = layer.qkv(layer.norms[0](hidden)).view(batch, count, -1, layer.dim)
            turned, fresh_values = qkv.split([layer.heads + layer.kv_heads, layer.kv_heads], dim=2)
            turned = layer.head_norm(turned)
            turned = torch.addcmul(turned * cos, turned.roll(layer.dim // 2, -1), sin)
            queries, fresh_keys = turned.split([layer.heads, layer.kv_heads], dim=2)
            new_keys.copy_(fresh_keys)
            new_values.copy_(fresh_values)
            hidden = hidden + layer.out(_attend(queries, keys, values, mask, causal))
            gate, up = layer.gate_up(layer.norms[1](hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.down(layer.activation(gate).mul_(up))
            if index < len(deepstack) and image_places is not None:
                hidden.index_add_(0, image_places, deepstack[index])
        return self._norm(hidden).view(batch, count, width)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What new tokens add to their scores (B, 1, n, columns), of the columns (B, n, columns) they see, or none.

    Where n is 1 all new tokens of a row see the same. Attention without a mask is quicker, and rows of one length need
    none.
    """
    if bool(visible.all()):
        return None
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -math.inf)[:, None]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention of (B, n, heads, d) to (B, kv heads, columns, d): (B * n, heads * d)."""
    batch, count, heads, dim = queries.shape
    attention = functional.scaled_dot_product_attention
    if causal or (mask is not None and mask.shape[-2] > 1):
        mixed: Tensor = attention(
            queries.transpose(1, 2), keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True
        )
        return mixed.transpose(1, 2).reshape(batch * count, -1)
    # All queries see the same, so those of the heads that share keys stand in line: no key is repeated.
    shared = keys.shape[1]
    if shared == 1 or count == 1:
        mixed = attention(queries.reshape(batch, shared, -1, dim), keys, values, attn_mask=mask)
        return mixed.reshape(batch * count, -1)
    line = queries.unflatten(2, (shared, -1)).transpose(1, 2).reshape(batch, shared, -1, dim)
    mixed = attention(line, keys, values, attn_mask=mask).unflatten(2, (count, heads // shared))
    return mixed.transpose(1, 2).reshape(batch * count, -1)
