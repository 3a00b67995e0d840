"""The operations of a decoder layer on a GPU: a fifth of PyTorch's launches, and products that fill the card."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from finetune.engine import kernels
from finetune.engine.operations import Operations, Weight

# More rows than these are worth cuBLAS.
_FEW_ROWS = 64
_LOG2_E = 1.4426950408889634
# Columns of the memory that attention reads at once.
_COLUMNS = 128


class TritonOperations(Operations):
    """The kernels, for half-precision weights on one device.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        properties = torch.cuda.get_device_properties(device)
        self._processors = properties.multi_processor_count
        early = properties.major >= 9
        self._launch: dict[str, Any] = {"EARLY": early, "launch_pdl": True} if early else {"EARLY": False}

    def product(self, x: Tensor, weight: Weight) -> Tensor:
        rows, inner = x.shape
        if not isinstance(weight, Tensor) or rows > _FEW_ROWS or inner % 64:
            return super().product(x, weight)
        tall, block_n, block_k = _rows(rows), 64, 128 if inner % 128 == 0 else 64
        blocks = triton.cdiv(len(weight), block_n)
        # Narrow tiles leave room for two on a multiprocessor.
        parts = max(1, min(4, (1 if tall == _FEW_ROWS else 2) * self._processors // blocks))
        share = triton.cdiv(inner // block_k, parts) * block_k
        parts = triton.cdiv(inner, share)
        out = x.new_empty(parts, rows, len(weight), dtype=torch.float32)
        stages = 4 if block_k == 128 else 8
        kernels.product[blocks, parts](
            x, weight, out, rows, len(weight), inner, share, tall, block_n, block_k, stages, **self._launch
        )
        return out

    def add_and_norm(self, hidden: Tensor, parts: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        rows, width = hidden.shape
        out = torch.empty_like(hidden)
        count = 0 if parts is None else len(parts)
        summands = hidden if parts is None else parts.contiguous()
        block = triton.next_power_of_2(width)
        kernels.add_and_norm[(rows,)](
            hidden, summands, weight, out, eps, rows, width, block, count, num_warps=16, **self._launch
        )
        return out

    def turn_and_store(
        self,
        parts: Tensor,
        norms: tuple[Tensor, Tensor],
        eps: float,
        rotary: tuple[Tensor, Tensor],
        places: Tensor,
        memory: tuple[Tensor, Tensor],
    ) -> Tensor:
        keys, values = memory
        key_heads, columns, dim = keys.shape
        count, rows, width = parts.shape
        heads = width // dim - 2 * key_heads
        queries = keys.new_empty(rows, heads, dim)
        kernels.turn_and_store[rows, heads // key_heads + 2](
            parts,
            *norms,
            *rotary,
            places,
            queries,
            keys,
            values,
            eps,
            columns,
            rows,
            heads,
            key_heads,
            triton.next_power_of_2(key_heads),
            dim // 2,
            count,
            num_warps=4,
            **self._launch,
        )
        return queries

    def turn(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What :func:`finetune.alpamayo.vision.turn_queries_and_keys` does."""
        images, patches, _, heads, dim = qkv.shape
        out = qkv.new_empty(images, patches, 2, heads, dim)
        group, block = triton.next_power_of_2(heads), triton.next_power_of_2(dim // 2)
        kernels.turn[images * patches, 2](qkv, cos, sin, out, patches, heads, group, dim // 2, block)
        queries, keys = out.permute(2, 0, 3, 1, 4)
        return queries, keys, qkv[:, :, 2].transpose(1, 2)

    def attend(self, queries: Tensor, memory: tuple[Tensor, Tensor], limits: Tensor | None) -> Tensor:
        if limits is None:
            return super().attend(queries, memory, limits)
        rows, heads, dim = queries.shape
        keys, values = memory
        out = queries.new_empty(rows, heads * dim)
        kernels.attend[heads, triton.cdiv(rows, 16)](
            queries,
            keys,
            values,
            limits,
            out,
            dim**-0.5 * _LOG2_E,
            rows,
            keys.shape[1],
            heads,
            heads // len(keys),
            dim,
            16,
            _COLUMNS,
            num_warps=4,
            **self._launch,
        )
        return out

    def gated(self, x: Tensor, weight: Weight) -> Tensor:
        rows, inner = x.shape
        if not isinstance(weight, Tensor) or rows > _FEW_ROWS or inner % 128 or len(weight) % 64:
            both = super().product(x, weight)[0]
            width = both.shape[1] // 2
            out = x.new_empty(rows, width)
            kernels.silu_mul[(triton.cdiv(out.numel(), 1024),)](both, out, width, out.numel(), 1024, **self._launch)
        else:
            width = len(weight) // 2
            out = x.new_empty(rows, width)
            kernels.gated[(width // 32,)](x, weight, out, rows, width, inner, _rows(rows), 32, 128, 3, **self._launch)
        return out


def _rows(count: int) -> int:
    """Rows of a tile that holds so many."""
    return max(16, int(triton.next_power_of_2(count)))
