"""Camera frames to patches: the one way pixels reach the model, in training and in driving.

Released models take each frame resized to multiples of 32 within a pixel budget. A model folder may ask for a crop
and a fixed size instead (``preprocessor_config.json``), for cameras that see much sky and bonnet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from collector.common.arguments import Arguments, argument, same_as
from collector.common.errors import MonoError
from finetune.alpamayo.configuration import AlpamayoConfig, VisionSizes
from finetune.model_files.configuration_files import read_json

PREPROCESSOR_FILE = "preprocessor_config.json"
_MEAN = _STD = 0.5
_MAX_ASPECT = 200.0


@dataclass(frozen=True)
class ImageSettings(Arguments):
    """How an image is cut and scaled."""

    # min_pixels, max_pixels: budget of the official resize
    min_pixels: int = same_as(AlpamayoConfig, "min_pixels")
    max_pixels: int = same_as(AlpamayoConfig, "max_pixels")
    crop_top: float = argument(0.0, "fraction of the height cut away before resizing", 0.0, 1.0)
    crop_bottom: float = argument(0.0, "the same from the bottom", 0.0, 1.0)
    resize_width_px: int | None = argument(
        None, "fixed size, a multiple of 32, aspect ratio free; both or neither", 1, 8192
    )
    resize_height_px: int | None = argument(None, "the same", 1, 8192)
    patch_size: int = same_as(VisionSizes, "patch_size")
    merge_size: int = same_as(VisionSizes, "spatial_merge_size")
    temporal_patch_size: int = same_as(VisionSizes, "temporal_patch_size")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (min(self.crop_top, self.crop_bottom) >= 0.0 and self.crop_top + self.crop_bottom < 1.0):
            found = f"image crop {self.crop_top} from the top and {self.crop_bottom} from the bottom"
            raise MonoError(found, "fractions of the height that leave something", f"correct {PREPROCESSOR_FILE}")
        fixed = (self.resize_width_px, self.resize_height_px)
        if fixed != (None, None) and any(not side or side % self.factor for side in fixed):
            found = f"image size {fixed}"
            raise MonoError(found, f"width and height, both multiples of {self.factor}", f"correct {PREPROCESSOR_FILE}")

    @property
    def factor(self) -> int:
        """Pixels per side of one language-model token."""
        return self.patch_size * self.merge_size


def read_image_settings(folder: Path | str, min_pixels: int, max_pixels: int) -> ImageSettings:
    """Settings of a model folder: the pixel budget of its ``config.json`` and, where present, its crop and size."""
    path = Path(folder) / PREPROCESSOR_FILE
    values: dict[str, Any] = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    if path.is_file():
        stored = read_json(path)
        known = {f.name for f in fields(ImageSettings)} - set(values)
        values |= {key: value for key, value in stored.items() if key in known}
        for key, expected in (("image_mean", _MEAN), ("image_std", _STD)):
            if stored.get(key, [expected] * 3) != [expected] * 3:
                raise MonoError(f"{path}: {key} is {stored[key]}", f"{[expected] * 3}")
    try:
        return ImageSettings(**values)
    except MonoError as error:
        raise MonoError(f"{path}: {error.found}", error.expected, "correct it, or download it again") from error


def write_image_settings(settings: ImageSettings, folder: Path | str) -> None:
    """Write ``preprocessor_config.json``."""
    content = {**asdict(settings), "image_mean": [_MEAN] * 3, "image_std": [_STD] * 3}
    (Path(folder) / PREPROCESSOR_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width nearest to the input that are multiples of ``factor`` within the pixel budget (Qwen's rule).

    Raises:
        MonoError: an image far too narrow.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > _MAX_ASPECT:
        raise MonoError(f"an image of {width}x{height} pixels", f"an aspect ratio below {_MAX_ASPECT:.0f}")
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def cut_and_size(height: int, width: int, settings: ImageSettings) -> tuple[int, int, int, int]:
    """Of an image of this size: the first row that stays, the first one cut away below, and height and width wanted."""
    top, bottom = round(height * settings.crop_top), height - round(height * settings.crop_bottom)
    if settings.resize_height_px is not None and settings.resize_width_px is not None:
        return top, bottom, settings.resize_height_px, settings.resize_width_px
    return top, bottom, *smart_resize(bottom - top, width, settings.factor, settings.min_pixels, settings.max_pixels)


def patch_grid(height: int, width: int, settings: ImageSettings) -> tuple[int, int, int]:
    """Frames, rows and columns of patches that an image of this size becomes."""
    _, _, rows, columns = cut_and_size(height, width, settings)
    return 1, rows // settings.patch_size, columns // settings.patch_size


def normalisation() -> tuple[float, float]:
    """Factor and what is subtracted then, from grey levels to what the model sees."""
    return 1.0 / (255.0 * _STD), _MEAN / _STD


def resize(image: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.uint8]:
    """Crop and resize one (H, W, 3) RGB image; bicubic with antialiasing, as the official processor."""
    height, width = image.shape[:2]
    top, bottom, rows, columns = cut_and_size(height, width, settings)
    if (rows, columns) == (height, width) and (top, bottom) == (0, height):
        return image
    cut = np.ascontiguousarray(image[top:bottom])
    return np.asarray(Image.fromarray(cut).resize((columns, rows), Image.Resampling.BICUBIC))


def patchify(image: NDArray[np.uint8], settings: ImageSettings) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Normalised flat patches of a resized image, (rows * columns, 3 * temporal * patch**2) float32, and their grid.

    Patches are ordered merge block by merge block; within one, values run channel, time, row, column. A single frame
    fills both temporal slots.
    """
    patch, merge = settings.patch_size, settings.merge_size
    rows, columns = image.shape[0] // patch, image.shape[1] // patch
    # Reordered while still bytes: a quarter of the memory traffic of floats.
    blocks = image.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, 1, patch * patch)
    scale, shift = normalisation()
    values = blocks.astype(np.float32) * np.float32(scale) - np.float32(shift)
    timed = np.broadcast_to(values, (rows * columns, 3, settings.temporal_patch_size, patch * patch))
    return timed.reshape(rows * columns, -1), (1, rows, columns)


def preprocess(
    images: Sequence[NDArray[np.uint8]], settings: ImageSettings
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All images of one prompt: pixel_values (P, 1536) float32 and grids (n, 3) int64.

    Raises:
        MonoError: no image, or something that is not (H, W, 3) uint8.
    """
    if not images:
        raise MonoError("a prompt without images", "at least one front image")
    made: dict[int, tuple[NDArray[np.float32], tuple[int, int, int]]] = {}
    for given in images:
        if id(given) not in made:  # padding repeats one black frame
            image = np.asarray(given)
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise MonoError(f"an image of shape {image.shape}, {image.dtype}", "(H, W, 3) uint8 RGB")
            made[id(given)] = patchify(resize(image, settings), settings)
    patches, grids = zip(*(made[id(given)] for given in images), strict=True)
    return np.concatenate(patches), np.asarray(grids, dtype=np.int64)
