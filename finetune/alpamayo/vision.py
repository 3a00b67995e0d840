"""The vision tower over many images of one size at once.

transformers runs Qwen3-VL's vision attention image by image unless FlashAttention is present: sixteen images
of four cameras then cost sixteen small attention calls per layer. Kart frames all have one size, so the same
weights can run as one batch. :func:`encode_equal_images` is that pass; it gives what the module gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def patch_rows_and_columns(rows: int, columns: int, merge: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch in the order Qwen's processor emits them: merge block by merge block.

    Args:
        rows, columns: the patch grid of one image, multiples of ``merge``.
        merge: patches per side of a block that becomes one language-model token.

    Returns:
        Two (rows * columns,) int64 tensors.
    """
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")

    def in_blocks(grid: Tensor) -> Tensor:
        blocks = grid.reshape(rows // merge, merge, columns // merge, merge)
        return blocks.permute(0, 2, 1, 3).reshape(-1)

    return in_blocks(row), in_blocks(column)


def position_table(side: int, row: Tensor, column: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Where a patch looks into the square learned position table: four neighbours and their weights.

    Bilinear with aligned corners, as Qwen3-VL resamples its 48 x 48 table.

    Returns:
        indices (P, 4) into the flattened table and weights (P, 4).
    """

    def axis(index: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        place = torch.linspace(0, side - 1, count)[index]
        low = place.to(torch.int64)
        high = torch.clamp(low + 1, max=side - 1)
        return low, high, place - low

    top, bottom, down = axis(row, rows)
    left, right, across = axis(column, columns)
    indices = torch.stack([top * side + left, top * side + right, bottom * side + left, bottom * side + right], dim=1)
    weights = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across], dim=1)
    return indices, weights


def rotary_angles(row: Tensor, column: Tensor, head_dim: int, theta: float = 10000.0) -> Tensor:
    """Rotary angles (P, head_dim) of patches: row frequencies beside column frequencies, both doubled."""
    half = head_dim // 2
    inverse = 1.0 / (theta ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
    angles = torch.cat([row[:, None] * inverse, column[:, None] * inverse], dim=1)
    return torch.cat([angles, angles], dim=1)


def turn_queries_and_keys(qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (n, heads, P, d) of a joined product, the former two turned, in float32 inside.

    Args:
        qkv: (n, P, 3, heads, d).
        cos, sin: (P, d) of :func:`rotary_angles`.
    """
    turning, values = qkv[:, :, :2].float(), qkv[:, :, 2].transpose(1, 2)
    half = turning.shape[-1] // 2
    signed = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)[:, None, None]
    turned = torch.addcmul(turning * cos[:, None, None], turning.roll(half, -1), signed).to(qkv.dtype)
    queries, keys = turned.permute(2, 0, 3, 1, 4)
    return queries, keys, values


Turn = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def all_equal(grid_thw: Tensor) -> bool:
    """Whether every image has one frame and the same patch grid, so that the batched pass applies."""
    return bool((grid_thw == grid_thw[0]).all()) and int(grid_thw[0, 0]) == 1


class _Tables:
    """Per-grid tables of one tower, made once per size and device."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, str], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def of(self, visual: Any, rows: int, columns: int, device: torch.device) -> tuple[Tensor, ...]:
        key = (rows, columns, str(device))
        if key not in self._known:
            config = visual.config
            row, column = patch_rows_and_columns(rows, columns, config.spatial_merge_size)
            side = int(config.num_position_embeddings**0.5)
            indices, weights = position_table(side, row, column, rows, columns)
            angles = rotary_angles(row, column, config.hidden_size // config.num_heads)
            self._known[key] = tuple(table.to(device) for table in (indices, weights, angles.cos(), angles.sin()))  # type: ignore[assignment]
        return self._known[key]


def encode_equal_images(
    visual: nn.Module, pixel_values: Tensor, grid_thw: Tensor, turn: Turn = turn_queries_and_keys
) -> tuple[Tensor, list[Tensor]]:
    """Run a Qwen3-VL vision tower over images of one size as a batch.

    Args:
        visual: transformers' ``Qwen3VLVisionModel`` (any 4.57 or 5.x), possibly with adapters inside.
        pixel_values: (n * rows * columns, patch values) flattened patches.
        grid_thw: (n, 3) with equal rows.
        turn: another way to do what :func:`turn_queries_and_keys` does.

    Returns:
        image tokens (n * tokens, D) and the deepstack features, a list of (n * tokens, D).
    """
    config: Any = visual.config
    tables = visual.__dict__.setdefault("_alpamayo_tables", _Tables())
    count, rows, columns = len(grid_thw), int(grid_thw[0, 1]), int(grid_thw[0, 2])
    indices, weights, cos, sin = tables.of(visual, rows, columns, pixel_values.device)
    patches = rows * columns

    tower: Any = visual
    hidden = _embed_patches(tower.patch_embed.proj, pixel_values)
    position = (tower.pos_embed(indices) * weights[..., None].to(tower.pos_embed.weight.dtype)).sum(1)
    hidden = hidden.view(count, patches, -1) + position.to(hidden.dtype)
    deep: list[Tensor] = []
    for index, block in enumerate(tower.blocks):
        normed = block.norm1(hidden)
        qkv = block.attn.qkv(normed).view(count, patches, 3, config.num_heads, -1)
        attended = functional.scaled_dot_product_attention(*turn(qkv, cos, sin))
        hidden = hidden + block.attn.proj(attended.transpose(1, 2).reshape(count, patches, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
        if index in config.deepstack_visual_indexes:
            merger = tower.deepstack_merger_list[config.deepstack_visual_indexes.index(index)]
            deep.append(merger(hidden.reshape(count * patches, -1)))
    return tower.merger(hidden.reshape(count * patches, -1)), deep


def _embed_patches(convolution: Any, pixel_values: Tensor) -> Tensor:
    """The patch convolution as the matrix product it is: a patch is exactly one kernel wide."""
    flat = convolution.weight.reshape(convolution.weight.shape[0], -1)
    return functional.linear(pixel_values.to(flat.dtype), flat, convolution.bias)
