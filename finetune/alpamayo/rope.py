"""Multimodal rotary positions: text counts on, an image spreads over time, row and column.

Written out here because the library's own function changes its signature between versions.
"""

from __future__ import annotations

from bisect import bisect_left

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
    known: dict[tuple[bytes, tuple[object, ...]], tuple[Tensor, int, int]] = {}
    images_of: dict[bytes, int] = {}
    for row, length in enumerate(lengths.tolist()):
        is_image = ids[row, :length] == image_token_id
        # Rows of a batch usually share their image layout; it is then laid out once.
        layout = is_image.numpy().tobytes()
        key = (layout, tuple(grids[used : used + images_of.get(layout, 0)]))
        if layout not in images_of or key not in known:
            result = _row_positions(is_image, grids, used, merge)
            images_of[layout] = result[2]
            key = (layout, tuple(grids[used : used + result[2]]))
            known[key] = result
        walked, following[row], used_here = known[key]
        positions[:, row, :length] = walked
        used += used_here
    if used != len(grids):
        raise MonoError(f"{len(grids)} images but placeholders for {used}", "one block of placeholders per image")
    return positions.to(device), following.to(device)


def _row_positions(is_image: Tensor, grids: list[tuple[int, ...]], used: int, merge: int) -> tuple[Tensor, int, int]:
    """Positions (3, length), next position, and number of images of one row."""
    length, index, position, first = len(is_image), 0, 0, used
    pieces: list[Tensor] = []
    starts = torch.nonzero(is_image).flatten().tolist()
    while index < length:
        place = bisect_left(starts, index)
        upcoming = starts[place] if place < len(starts) else length
        text = upcoming - index
        pieces.append((torch.arange(text) + position).expand(3, -1))
        index, position = upcoming, position + text
        if index < length:
            if used >= len(grids):
                raise MonoError("more image placeholders than images", "one block of placeholders per image")
            piece, position = image_positions(grids[used], position, merge)  # type: ignore[arg-type]
            size = piece.shape[1]
            if not bool(is_image[index : index + size].all()) or index + size > length:
                raise MonoError(f"image {used} needs {size} placeholders", "as many as its grid has tokens")
            pieces.append(piece)
            index, used = index + size, used + 1
    return torch.cat(pieces, dim=1), position, used - first
