"""What a decoder layer does between its weights, on rows of one kart: the plain form, and the rounding it fixes.

:class:`Operations` is plain PyTorch and runs anywhere; :mod:`finetune.engine.triton_operations` does the same on a
GPU in fewer and faster launches. Shapes: T rows of width D, H query and G key heads of width d, C columns of memory.

A product is handed on in parts (S, T, N) that sum up to it, so that whoever needs it next adds them up on the way.
Tables, places and limits are read before the work ahead is done: they are made before the rows are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from finetune.alpamayo.vision import turn_queries_and_keys

# What multiplies rows (T, K) into rows (T, N): a matrix (N, K), or packed layers that are called.
Weight: TypeAlias = Tensor | Callable[[Tensor], Tensor]


class Operations:
    """The plain form; every result is rounded to the precision of the weights, as transformers' modules do."""

    def product(self, x: Tensor, weight: Weight) -> Tensor:
        """Rows (T, K) times a matrix (N, K): parts (S, T, N)."""
        return (functional.linear(x, weight) if isinstance(weight, Tensor) else weight(x))[None]

    def add_and_norm(self, hidden: Tensor, parts: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add a product to ``hidden`` (T, D) in place; its RMS norm (T, D) times ``weight``."""
        if parts is not None:
            hidden.add_(self._whole(parts, hidden))
        return functional.rms_norm(hidden, hidden.shape[-1:], None, eps) * weight

    def turn_and_store(
        self,
        parts: Tensor,
        norms: tuple[Tensor, Tensor],
        eps: float,
        rotary: tuple[Tensor, Tensor],
        places: Tensor,
        memory: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Queries (T, H, d) of a joined product, normed and turned; its keys and values go into the memory.

        Args:
            parts: (S, T, (H + 2 G) d), queries before keys before values.
            norms: weights (d,) of queries and keys; eps: under the root.
            rotary: cosines and sines (C, d / 2) of each column.
            places: (T,) columns of the rows.
            memory: keys and values (G, C, d).
        """
        keys, values = memory
        dim, key_heads = keys.shape[-1], len(keys)
        joined = self._whole(parts, keys).view(len(places), -1, dim)
        queries, fresh, fresh_values = joined.split([joined.shape[1] - 2 * key_heads, key_heads, key_heads], dim=1)
        cos, sin = (table[places][:, None] for table in rotary)
        turned = []
        for heads, weight in zip((queries, fresh), norms, strict=True):
            first, second = (functional.rms_norm(heads, (dim,), None, eps) * weight).chunk(2, dim=-1)
            turned.append(torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))
        keys.index_copy_(1, places, turned[1].transpose(0, 1))
        values.index_copy_(1, places, fresh_values.transpose(0, 1))
        return turned[0]

    def turn(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the vision tower, see :func:`finetune.alpamayo.vision.turn_queries_and_keys`."""
        return turn_queries_and_keys(qkv, cos, sin)

    def attend(self, queries: Tensor, memory: tuple[Tensor, Tensor], limits: Tensor | None) -> Tensor:
        """Attention (T, H d) of queries (T, H, d) to the columns of the memory below each row's limit (T,).

        Without limits the rows are the first columns, and each sees those up to its own.
        """
        count = len(queries)
        keys, values = memory
        if limits is None:
            keys, values, mask = keys[:, :count], values[:, :count], None
        else:
            mask = (torch.arange(keys.shape[1], device=limits.device) < limits[:, None])[None]
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=limits is None,
            enable_gqa=True,
        )
        return mixed[0].transpose(0, 1).reshape(count, -1)

    def gated(self, x: Tensor, weight: Weight) -> Tensor:
        """silu(gate) * up (T, I) of x (T, D), where ``weight`` (2 I, D) holds gate before up."""
        gate, up = Operations.product(self, x, weight)[0].chunk(2, dim=-1)
        return functional.silu(gate) * up

    @staticmethod
    def _whole(parts: Tensor, like: Tensor) -> Tensor:
        return (parts[0] if len(parts) == 1 else parts.sum(0)).to(like.dtype)
