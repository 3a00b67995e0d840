"""Multimodal rotary positions: text counts on, an image spreads over time, row and column.

Written out here because the library's own function changes its signature between versions.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from collector.common.errors import MonoError


def image_positions(grid_thw: tuple[int, int, int], start: int, merge: int) -> tuple[Tensor, int]:
    """Positions (3, tokens) of one image that starts at ``start``, and the position after it."""
    frames, rows, columns = grid_thw[0], grid_thw[1] // merge, grid_thw[2] // merge
    axes = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes]) + start, start + max(frames, rows, columns)


def prefix_positions(
    input_ids: Tensor, attention_mask: Tensor, grid_thw: Tensor, image_token_id: int, merge: int
) -> tuple[Tensor, Tensor]:
    """Positions of right-padded rows.

    Args:
        input_ids, attention_mask: (B, L).
        grid_thw: (n, 3) grids of all images, row after row.

    Returns:
        positions (3, B, L), zero on padding, and each row's next position (B,) after its last token; both on the
        device of ``input_ids``.

    Raises:
        MonoError: image placeholders do not match the grids, or a row is padded on the left or within.
    """
    device = input_ids.device
    ids, lengths = input_ids.cpu(), attention_mask.cpu().long().sum(-1)
    if not bool((attention_mask.cpu().bool() == (torch.arange(ids.shape[1]) < lengths[:, None])).all()):
        raise MonoError("a batch with padding on the left", "rows padded on the right")
    grids = [tuple(row) for row in grid_thw.tolist()]
    positions = torch.zeros(3, *ids.shape, dtype=torch.long)
    following = torch.zeros(len(ids), dtype=torch.long)
    used = 0
    for row, length in enumerate(lengths.tolist()):
        is_image = ids[row, :length] == image_token_id
        images = int(torch.diff(is_image.int(), prepend=torch.zeros(1, dtype=torch.int)).clamp(min=0).sum())
        layout = is_image.numpy().tobytes()
        positions[:, row, :length], following[row] = _row_positions(layout, tuple(grids[used : used + images]), merge)
        used += images
    if used != len(grids):
        raise MonoError(f"{len(grids)} images but placeholders for {used}", "one block of placeholders per image")
    return positions.to(device), following.to(device)


# The rows of a batch, and one prompt after the other, usually share their layout.
@lru_cache(maxsize=64)
def _row_positions(layout: bytes, grids: tuple[tuple[int, int, int], ...], merge: int) -> tuple[Tensor, int]:
    """Positions (3, length) of a row, a byte a token that says whether it is an image's, and its next position."""
    length, index, position, left = len(layout), 0, 0, list(grids)
    pieces: list[Tensor] = []
    while index < length:
        upcoming = layout.find(1, index)
        text = (length if upcoming < 0 else upcoming) - index
        pieces.append((torch.arange(text) + position).expand(3, -1))
        index, position = index + text, position + text
        if index < length:
            if not left:
                raise MonoError("more image placeholders than images", "one block of placeholders per image")
            piece, position = image_positions(left.pop(0), position, merge)
            size = piece.shape[1]
            if layout[index : index + size] != b"\1" * size:
                raise MonoError(f"an image needs {size} placeholders", "as many as its grid has tokens")
            pieces.append(piece)
            index += size
    return torch.cat(pieces, dim=1), position
