"""Encoded rows on disk, mapped into memory: thousands of samples' image features need not fit in RAM.

The features of one image are 6 MB at the released size. A file of tensors one after the other and an index beside it.
A run that was killed reads its rows again instead of encoding them, and the processes of one run share them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collector.common.errors import MonoError
from collector.common.files import write_atomically
from finetune.alpamayo.cache import VisionFeatures
from finetune.training.batches import EncodedSample

# Offsets are multiples of this, so that bytes can be seen as any type.
_ALIGNMENT = 64


def write_rows(rows: Iterable[EncodedSample], path: Path) -> None:
    """Write rows as they come, one in memory at a time.

    Args:
        rows: any number.
        path: of the data; the index lies beside it.

    Raises:
        MonoError: the disk is full or cannot be written.
    """
    index: list[dict[str, Any]] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as data:
            for row in rows:
                places: dict[str, Any] = {}
                for name, tensor in _tensors(row).items():
                    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                    places[name] = [data.tell(), str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
                    data.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
                index.append({"sample_id": row.sample_id, "tensors": places})
        write_atomically(path.with_suffix(".json"), json.dumps(index))
    except OSError as error:
        raise MonoError(
            f"the encoded samples {path} cannot be written: {error}",
            "room on the disk",
            "make room, or choose an --out on another disk",
        ) from error


def read_rows(path: Path) -> list[EncodedSample]:
    """The rows of a file; their tensors are views of it and cost memory only while they are read."""
    index = json.loads(path.with_suffix(".json").read_text("utf-8"))
    size = path.stat().st_size
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8) if size else torch.zeros(0)

    def view(place: list[Any]) -> Tensor:
        offset, dtype, shape = place[0], getattr(torch, place[1]), place[2]
        count = dtype.itemsize * int(torch.Size(shape).numel())
        return mapped[offset : offset + count].view(dtype).view(shape)

    rows = []
    for entry in index:
        tensors: dict[str, Any] = {name: view(place) for name, place in entry["tensors"].items()}
        deepstack = [tensors.pop(name) for name in sorted(tensors) if name.startswith("deepstack")]
        if "embeds" in tensors:
            tensors["vision"] = VisionFeatures(tensors.pop("embeds"), deepstack)
        rows.append(EncodedSample(entry["sample_id"], **tensors))
    return rows


def _tensors(row: EncodedSample) -> dict[str, Tensor]:
    """A row's tensors by name, those of its features included."""
    tensors = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, VisionFeatures):
            tensors["embeds"] = value.embeds
            tensors |= {f"deepstack{layer:02d}": values for layer, values in enumerate(value.deepstack)}
        elif isinstance(value, Tensor):
            tensors[field.name] = value
    return tensors
