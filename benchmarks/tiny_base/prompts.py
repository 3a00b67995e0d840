"""The prompts of all training samples, made once and cut to the rig of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.tiny_base.shards import FULL_RIG, Shards
from finetune.processing.processor import Processor


@dataclass(frozen=True)
class Prompts:
    """Every sample's prompt for the full rig as padded ids, with reasoning and silent; on the device.

    Attributes:
        ids, lengths, labels: (N, L), (N,), (N, L) with the reasoning; labels mark what is to be learned.
        silent_ids, silent_lengths: (N, L2), (N,) without.
        images_at: column of the first image. image_length: columns of one image, its marks included.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor
    silent_ids: Tensor
    silent_lengths: Tensor
    images_at: int
    image_length: int

    def batch(self, chosen: Tensor, silent: bool, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels (B, L) of samples shown only so many images: fewer placeholders, that is all."""
        spare = (FULL_RIG.images - images) * self.image_length

        def shortened(table: Tensor) -> Tensor:
            return torch.cat([table[:, : self.images_at], table[:, self.images_at + spare : length + spare]], dim=1)

        lengths = (self.silent_lengths if silent else self.lengths)[chosen] - spare
        length = int(lengths.max())
        ids = shortened((self.silent_ids if silent else self.ids)[chosen].long())
        mask = torch.arange(length, device=ids.device) < lengths[:, None]
        labels = torch.zeros_like(mask) if silent else shortened(self.labels[chosen])
        return ids, mask, labels


def encode_prompts(shards: Shards, processor: Processor, tokens_per_image: int, device: torch.device) -> Prompts:
    """Prompts of all samples through the processor's own builder; the images add only their placeholders."""
    rows, learned, silent = [], [], []
    counts = [tokens_per_image] * FULL_RIG.images
    for history, text in zip(tqdm(shards.history, desc="prompts", unit="sample"), shards.reasoning, strict=True):
        words = processor.history_ids(history)
        row, count = processor.prompt_ids(counts, words, text)
        rows.append(row)
        learned.append(count)
        silent.append(processor.prompt_ids(counts, words, "")[0])

    def padded(values: list[list[int]]) -> tuple[Tensor, Tensor]:
        lengths = np.array([len(value) for value in values])
        out = np.full((len(values), lengths.max()), processor.pad_id, np.int32)
        for row, value in zip(out, values, strict=True):
            row[: len(value)] = value
        return torch.from_numpy(out).to(device), torch.from_numpy(lengths).to(device)

    ids, lengths = padded(rows)
    column = torch.arange(ids.shape[1], device=device)
    first = lengths - torch.tensor(learned, device=device)
    labels = (column >= first[:, None]) & (column < lengths[:, None])
    silent_ids, silent_lengths = padded(silent)
    images_at = rows[0].index(processor.tokenizer.id_of("<|vision_start|>"))
    return Prompts(ids, lengths, labels, silent_ids, silent_lengths, images_at, tokens_per_image + 2)
