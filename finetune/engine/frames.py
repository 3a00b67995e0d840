"""Camera frames to patches on the device, as :mod:`finetune.processing.images` makes them on the CPU.

A 1920 x 1080 frame costs a CPU some 25 ms and a GPU less than one. A resize along one axis is a matrix; it is read off
Pillow by resizing the unit matrix, so that both ways know one filter. Sums in single precision may round a value that
lies between two grey levels the other way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from finetune.processing.images import ImageSettings, cut_and_size, normalisation, patch_grid


class FramePatches:
    """Patches of frames of one size, on one device.

    Args:
        count: frames at once.
        height_px, width_px: of each.
        settings: how they are cut and scaled.
        device: where.
    """

    def __init__(
        self, count: int, height_px: int, width_px: int, settings: ImageSettings, device: torch.device
    ) -> None:
        self._settings = settings
        self._top, bottom, rows, columns = cut_and_size(height_px, width_px, settings)
        self._cut_rows = bottom - self._top
        self._along_rows = _resize_matrix(self._cut_rows, rows, device)
        self._along_columns = _resize_matrix(width_px, columns, device)
        grid = patch_grid(height_px, width_px, settings)
        _, self._rows, self._columns = grid
        self._frames = torch.zeros(count, height_px, width_px, 3, dtype=torch.uint8, device=device)
        self._staged = torch.zeros(count, height_px, width_px, 3, dtype=torch.uint8, pin_memory=device.type == "cuda")

    def put(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Hand over the frames (H, W, 3) RGB."""
        for place, frame in zip(self._staged, frames, strict=True):
            place.copy_(torch.from_numpy(np.ascontiguousarray(frame)))
        self._frames.copy_(self._staged, non_blocking=True)

    def patches(self) -> Tensor:
        """Normalised patches (P, 3 * temporal * patch**2), float32, of the frames handed over."""
        values = self._frames[:, self._top : self._top + self._cut_rows].permute(0, 3, 1, 2).float()
        # Pillow goes along rows of pixels first, and rounds to grey levels in between.
        if self._along_columns is not None:
            values = (values @ self._along_columns.T).add_(0.5).floor_().clamp_(0.0, 255.0)
        if self._along_rows is not None:
            values = (self._along_rows @ values).add_(0.5).floor_().clamp_(0.0, 255.0)
        s, count = self._settings, len(values)
        merged_rows, merged_columns = self._rows // s.merge_size, self._columns // s.merge_size
        blocks = values.view(
            count, 3, merged_rows, s.merge_size, s.patch_size, merged_columns, s.merge_size, s.patch_size
        )
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3, 1, s.patch_size**2)
        scale, shift = normalisation()
        timed = (blocks * scale - shift).expand(-1, -1, s.temporal_patch_size, -1)
        return timed.reshape(len(timed), -1)


def _resize_matrix(size: int, target: int, device: torch.device) -> Tensor | None:
    """(target, size) bicubic with antialiasing, as Pillow's; None where nothing changes."""
    if size == target:
        return None
    unit = Image.fromarray(np.eye(size, dtype=np.float32))
    columns = np.asarray(unit.resize((target, size), Image.Resampling.BICUBIC), np.float64)
    # On grey levels Pillow reckons in whole numbers, with weights in steps of 2**-22.
    return torch.from_numpy(np.floor(columns.T * 2**22 + 0.5) / 2**22).float().to(device)
