"""From samples to batches: the same encoding for training, evaluation and driving.

A row is a sample encoded once (tokens, normalised actions, image features where the vision tower is frozen);
a batch is rows padded to the right. Nothing here knows about adapters or optimisers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collector.common.errors import MonoError
from collector.common.pictures import read_picture
from collector.dataset.schema import Sample
from collector.geometry.poses import mirror_poses
from collector.reasoning.manner_writing import asked_part, unasked
from collector.reasoning.writing import swap_sides
from finetune.alpamayo.model import VisionFeatures
from finetune.alpamayo.packing import Packing
from finetune.policy import Observation, PolicySettings, camera_of_each_image, frames_of, select_images
from finetune.processing.images import preprocess
from finetune.processing.processor import pad_right

_MIRRORED = "-mirror"  # how the id of a mirrored row ends
# How much of its reasoning a row is trained with: all of it; without what somebody asked for; none.
Said = Literal["all", "unasked", "nothing"]


@dataclass(frozen=True)
class EncodedSample:
    """One encoded sample."""

    sample_id: str  # for messages that must name a sample
    input_ids: Tensor  # (L,) prompt, reasoning and `<|traj_future_start|>`
    label_mask: Tensor  # (L,) true where the text loss applies
    silent_ids: Tensor  # (L2,) the prompt that skips the reasoning, for reasoning dropout
    actions: Tensor  # (64, 2) normalised acceleration and curvature
    grid_thw: Tensor  # their grids
    pixels: Tensor | None = None  # packed patches (see `pack_pixels`); they go once features exist
    vision: VisionFeatures | None = None  # cached image features, or None while the vision tower trains
    history: Tensor | None = None  # (16, 3) poses before t0, for losses in metres
    unasked_ids: Tensor | None = None  # (L3,) without what somebody asked for, for wish dropout; None: nobody asked
    pair: str = ""  # the same for rows of one frame seen from the same side; empty for a sample alone

    @property
    def is_mirrored(self) -> bool:
        """Whether it is the mirror image of a sample."""
        return self.sample_id.endswith(_MIRRORED)


@dataclass(frozen=True)
class Batch:
    """Rows side by side; tensors as in :class:`EncodedSample` with a leading batch axis, right-padded."""

    sample_ids: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    label_mask: Tensor
    actions: Tensor
    grid_thw: Tensor
    pixel_values: Tensor | None
    vision: VisionFeatures | None
    history: Tensor | None = None
    # (B,) the row with another text of the same frame that a row is held against; itself where there is none
    partner: Tensor | None = None
    packing: Packing | None = None  # rows of one pair behind one prompt; image features are then of the first of each

    def __len__(self) -> int:
        return len(self.sample_ids)


def read_frame(path: Path) -> NDArray[np.uint8]:
    """One stored frame as (H, W, 3) uint8 RGB.

    Raises:
        MonoError: the file is absent or no image.
    """
    return np.asarray(cv2.cvtColor(read_picture(path), cv2.COLOR_BGR2RGB), np.uint8)


def observe(sample: Sample, folder: Path, cameras: str = PolicySettings.cameras) -> Observation:
    """The observation a driver in this camera mode would have had at a sample's t0: front frames, history, speed."""
    images = [read_frame(folder / name) for name in sample.frames[-frames_of(cameras) :]]
    if len(sizes := {image.shape for image in images}) > 1:
        raise MonoError(f"frames of different sizes: {sorted(sizes)}", "those of one camera", "build the dataset again")
    frames = np.stack(images)
    return Observation(
        stamp_ns=sample.stamp_ns,
        frames={"front": frames},
        history=np.asarray(sample.history, np.float64),
        speed_mps=sample.speed_mps,
    )


class SampleError(MonoError):
    """A sample that cannot be used; ``reason`` is what to count it under."""

    def __init__(self, sample_id: str, reason: str, error: MonoError) -> None:
        super().__init__(f"sample {sample_id}: {error}", "", "")
        self.reason = reason


@contextmanager
def _blame(sample: Sample, reason: str) -> Iterator[None]:
    try:
        yield
    except MonoError as error:
        raise SampleError(sample.id, reason, error) from error


def encode_row(
    loaded: Any, sample: Sample, folder: Path, cameras: str, mirrored: bool = False, like: EncodedSample | None = None
) -> EncodedSample:
    """Encode one sample with the processor and action space of a ``finetune.checkpoint.LoadedModel``.

    ``mirrored``: what a mirror would show; true to life for a camera on the kart's middle line. ``like`` is a row of
    the same frames, from either side as this one: its pixels are taken instead of reading them again.

    What a text only repeats of what was asked (:func:`collector.reasoning.manner_writing.asked_part`) is read and not
    learned: no picture shows it, and a model that learned it would ask itself for things.

    Raises:
        SampleError: a frame that cannot be read, or a history, reasoning or path that cannot be encoded.
    """
    past, future = np.asarray(sample.history, np.float64), np.asarray(sample.future, np.float64)
    reasoning, mark = sample.reasoning, _MIRRORED if mirrored else ""
    if mirrored:
        past, future, reasoning = mirror_poses(past), mirror_poses(future), swap_sides(reasoning)
    pixels: Tensor | None
    if like is None:
        pixels, grid_thw = _picture(loaded, sample, folder, cameras, mirrored)
    else:
        pixels, grid_thw = like.pixels, like.grid_thw
    with _blame(sample, "unusable frame, history or reasoning"):
        each = camera_of_each_image(cameras)
        input_ids, label_mask = loaded.processor.tokens(grid_thw, past, reasoning, each)
        silent_ids, _ = loaded.processor.tokens(grid_thw, past, "", each)
        unasked_ids = None
        if asked := asked_part(reasoning):
            beginning = loaded.processor.tokenizer.encode_beginning(asked, reasoning[len(asked) :])
            label_mask[label_mask.nonzero()[: len(beginning)]] = False
        if rest := unasked(reasoning):
            unasked_ids, _ = loaded.processor.tokens(grid_thw, past, rest, each)
    history = torch.as_tensor(past, dtype=torch.float64)[None]
    actions = loaded.model.action_space.traj_to_action(history, torch.from_numpy(future)[None])[0].float()
    with _blame(sample, "path without finite actions"):
        if not torch.isfinite(actions).all():
            raise MonoError("non-finite actions", "finite poses", "look at its path")
    return EncodedSample(
        sample_id=sample.id + mark,
        input_ids=input_ids,
        label_mask=label_mask,
        silent_ids=silent_ids,
        actions=actions,
        grid_thw=grid_thw,
        pixels=pixels,
        history=history[0].float(),
        unasked_ids=unasked_ids,
        pair=sample.pair + mark if sample.pair else "",
    )


def _picture(loaded: Any, sample: Sample, folder: Path, cameras: str, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Packed pixels and grids of a sample's frames."""
    with _blame(sample, "unreadable frame"):
        observation = observe(sample, folder, cameras)
    if mirrored:
        frames = {name: images[:, :, ::-1] for name, images in observation.frames.items()}
        observation = replace(observation, frames=frames)
    with _blame(sample, "unusable frame, history or reasoning"):
        patches, grids = preprocess(select_images(observation, cameras), loaded.processor.images)
    return pack_pixels(torch.from_numpy(patches)), torch.from_numpy(grids)


def pack_pixels(pixel_values: Tensor) -> Tensor:
    """Patches (P, 3 * 2 * 256) in [-1, 1] as the bytes they were made from, an eighth of the memory and nothing lost.

    A single frame fills both temporal slots and came from 8-bit pixels, so one slot in bytes says it all.
    """
    still = pixel_values.reshape(len(pixel_values), 3, 2, -1)[:, :, 0]
    return ((still + 1.0) * 127.5).round().to(torch.uint8).flatten(1)


def unpack_pixels(packed: Tensor) -> Tensor:
    """The patches of :func:`pack_pixels`, (P, 3 * 2 * 256) float32, on the device of the bytes."""
    still = packed.view(len(packed), 3, 1, -1).float() * (1.0 / 127.5) - 1.0
    return still.expand(-1, -1, 2, -1).flatten(1)


def cache_vision(
    model: Any, rows: Iterable[EncodedSample], device: torch.device, chunk: int = 16
) -> Iterator[EncodedSample]:
    """Rows with their image features computed once, which a frozen vision tower permits.

    Pixels weigh ten times what features do, so rows are taken a chunk of pictures at a time and their pixels let go.
    Rows that share their pixels (see :func:`encode_row`) share their features, as long as they stand side by side.
    """
    part: list[EncodedSample] = []
    pictures: dict[int, EncodedSample] = {}  # one row of each, by its pixels
    for row in chain(rows, [None]):
        is_new = row is not None and id(row.pixels) not in pictures
        if part and (row is None or (is_new and len(pictures) == chunk)):
            features = _features(model, list(pictures.values()), device)
            of_each = dict(zip(pictures, features, strict=True))
            yield from (replace(one, pixels=None, vision=of_each[id(one.pixels)]) for one in part)
            part, pictures = [], {}
        if row is not None:
            part.append(row)
            pictures[id(row.pixels)] = row


def _features(model: Any, rows: Sequence[EncodedSample], device: torch.device) -> tuple[VisionFeatures, ...]:
    pixels = unpack_pixels(torch.cat([row.pixels for row in rows if row.pixels is not None]))
    grids = torch.cat([row.grid_thw for row in rows])
    with torch.no_grad():
        features = model.encode_images(pixels.to(device), grids.to(device))
    # Four patches merge into one token of the language model.
    return tuple(features.to("cpu").split([int(row.grid_thw.prod(dim=1).sum()) // 4 for row in rows]))


def collate(
    rows: Sequence[EncodedSample],
    pad_id: int,
    said: Sequence[Said] | None = None,
    multiple: int = 1,
    packed: bool = False,
) -> Batch:
    """Right-pad rows (one at least) into a batch.

    A row that says "nothing" has the prompt that skips the reasoning, and one that is "unasked" its reasoning without
    what somebody asked for; neither has a text label. The length is a multiple of so many words, for programs compiled
    per length. ``packed``: rows of one pair that stand side by side share their prompt.
    """
    how_much: Sequence[Said] = said or ["all"] * len(rows)
    ids = [_ids(row, how) for row, how in zip(rows, how_much, strict=True)]
    labels = [
        row.label_mask if how == "all" else torch.zeros(len(words), dtype=torch.bool)
        for row, how, words in zip(rows, how_much, ids, strict=True)
    ]
    input_ids = pad_right(ids, pad_id, multiple)
    packing = _packing(rows, ids, input_ids.shape[1], multiple) if packed else None
    seen = rows if packing is None else [rows[index] for index in packing.firsts.tolist()]
    features = [row.vision for row in seen if row.vision is not None]
    vision = VisionFeatures.cat(features) if len(features) == len(seen) else None
    pixels = [row.pixels for row in seen if row.pixels is not None]
    histories = [row.history for row in rows if row.history is not None]
    return Batch(
        sample_ids=tuple(row.sample_id for row in rows),
        input_ids=input_ids,
        attention_mask=pad_right([torch.ones_like(row) for row in ids], 0, multiple),
        label_mask=pad_right(labels, 0, multiple),
        actions=torch.stack([row.actions for row in rows]),
        grid_thw=torch.cat([row.grid_thw for row in rows]),
        pixel_values=unpack_pixels(torch.cat(pixels)) if pixels and vision is None else None,
        vision=vision,
        history=torch.stack(histories) if len(histories) == len(rows) else None,
        partner=_partners(ids, ["" if how == "nothing" else row.pair for row, how in zip(rows, how_much, strict=True)]),
        packing=packing,
    )


def _ids(row: EncodedSample, how: Said) -> Tensor:
    unasked_ids = row.input_ids if row.unasked_ids is None else row.unasked_ids
    return {"all": row.input_ids, "unasked": unasked_ids, "nothing": row.silent_ids}[how]


def _partners(ids: Sequence[Tensor], pairs: Sequence[str]) -> Tensor:
    """For each row the next one of its pair with other words, the first following the last; of no pair, itself."""
    partner = torch.arange(len(ids))
    groups: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        if pair:
            groups.setdefault(pair, []).append(index)
    for group in groups.values():
        for place, index in enumerate(group):
            others = [*group[place + 1 :], *group[:place]]
            partner[index] = next((other for other in others if not torch.equal(ids[other], ids[index])), index)
    return partner


def _packing(rows: Sequence[EncodedSample], ids: Sequence[Tensor], columns: int, multiple: int) -> Packing | None:
    """How rows of one pair share the words they all begin with; None where no two of a pair stand side by side."""
    groups = [list(group) for _, group in groupby(range(len(rows)), lambda index: rows[index].pair or index)]
    if len(groups) == len(rows):
        return None
    of_row = [number for number, group in enumerate(groups) for _ in group]
    shared = [common for group in groups for common in [_common([ids[index] for index in group])] * len(group)]
    return Packing.of([len(row) for row in ids], shared, of_row, columns, multiple)


def _common(ids: Sequence[Tensor]) -> int:
    """With how many equal words all of them begin."""
    shortest = min(len(row) for row in ids)
    differs = (torch.stack([row[:shortest] for row in ids]) != ids[0][:shortest]).any(dim=0)
    return int(differs.int().argmax()) if bool(differs.any()) else shortest
