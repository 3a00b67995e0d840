"""Samples to rows before training starts: each is read once, and one that cannot be used is set aside by reason.

Rows lie on disk and are mapped into memory, for the features of one image are 6 MB at the released size: a file of
tensors one after the other and an index beside it. A run that was killed reads its rows again instead of encoding them,
and the processes of one run share them.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from tqdm import tqdm

from collector.common.cpu import core_count
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.text_files import read_json_lines
from collector.dataset.schema import METADATA_FILE, Sample, read_samples, scan_samples
from finetune.alpamayo.cache import VisionFeatures
from finetune.training.batches import EncodedSample, SampleError, cache_vision, encode_row
from finetune.training.checkpoint import part_of, publish

ASIDE_FILE = "set_aside.jsonl"
_ENCODED_AT_ONCE = 32
_NAMED = 5
# Offsets are multiples of this, so that bytes can be seen as any type.
_ALIGNMENT = 64


@dataclass
class SetAside:
    """Samples that do not train, and why."""

    # `sample` (or line), `reason` and `error` (a sentence) of each
    entries: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, reason: str, error: Exception) -> None:
        """Count one."""
        self.entries.append({"sample": name, "reason": reason, "error": str(error)})

    def counts(self) -> dict[str, int]:
        """Reason -> how many."""
        return dict(Counter(entry["reason"] for entry in self.entries))

    def write(self, path: Path) -> None:
        """One JSON line each; nothing where all is well."""
        if self.entries:
            write_atomically(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.entries))

    @classmethod
    def read(cls, path: Path) -> SetAside:
        """What :meth:`write` wrote."""
        if not path.is_file():
            return cls()
        parts = "sample", "reason", "error"
        return cls(list(read_json_lines(path, "the list", lambda values: {part: str(values[part]) for part in parts})))

    def __str__(self) -> str:
        lines = [f"set aside {len(self.entries)}: " + ", ".join(f"{n} {reason}" for reason, n in self.counts().items())]
        lines += [f"  {entry['error']}" for entry in self.entries[:_NAMED]]
        if len(self.entries) > _NAMED:
            lines.append(f"  and {len(self.entries) - _NAMED} more in {ASIDE_FILE}")
        return "\n".join(lines)


def usable_samples(dataset: Path, aside: SetAside) -> list[Sample]:
    """The samples of a dataset; lines that do not fit the schema (a NaN, a missing field) are set aside.

    Raises:
        MonoError: no dataset, or no usable sample in it.
    """
    read_samples(dataset)  # says what is wrong with a folder that is no dataset, or an unfinished one
    samples = []
    for found in scan_samples(dataset / METADATA_FILE, Sample):
        if isinstance(found, Sample):
            samples.append(found)
        else:
            aside.add(found.found, "not a valid sample", found)
    if not samples:
        what = f"no {'usable ' if aside.entries else ''}sample in {dataset}" + (
            f" (first of {len(aside.entries)} refused lines: {aside.entries[0]['sample']})" if aside.entries else ""
        )
        raise MonoError(what, "a dataset with at least one", "run `alpamayo-mono build`")
    return samples


def encode_dataset(
    loaded: Any,
    samples: Mapping[Path, Sequence[Sample]],
    folder: Path,
    aside: SetAside,
    *,
    cameras: str,
    mirror: bool,
    frozen_vision: bool,
    device: torch.device,
) -> None:
    """Make a folder of encoded rows for :func:`encoded_rows`; it appears as a whole.

    ``samples`` are those of each dataset folder; ``aside`` gets those that cannot be encoded. ``mirror`` adds the
    mirror image of each training sample, ``frozen_vision`` keeps image features, computed on ``device``, in place of
    pixels.
    """
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    for split in ("train", "val"):
        chosen = [(sample, place) for place, each in samples.items() for sample in each if sample.split == split]
        views = (False, True) if mirror and split == "train" else (False,)
        bar = tqdm(total=len(chosen) * len(views), desc=f"encode ({split})", unit="sample", dynamic_ncols=True)
        rows: Iterable[EncodedSample] = _encoded(loaded, chosen, cameras, views, aside, bar)
        if frozen_vision:
            rows = cache_vision(loaded.model, rows, device)
        write_rows(rows, part / f"{split}.bin")
        bar.close()
    aside.write(part / ASIDE_FILE)
    publish(folder)


def encoded_rows(folder: Path) -> tuple[list[EncodedSample], list[EncodedSample], SetAside]:
    """Training and validation rows of :func:`encode_dataset`, mapped from their files, and what was set aside.

    Raises:
        MonoError: a file is absent, torn, or none of ours.
    """
    try:
        train, val = (read_rows(folder / f"{split}.bin") for split in ("train", "val"))
        return train, val, SetAside.read(folder / ASIDE_FILE)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        found = f"the encoded samples in {folder} are damaged ({str(error).strip()[:100]})"
        do = f"delete {folder} and run the same command again: it encodes them anew and goes on from its checkpoint"
        raise MonoError(found, "what was written there", do) from error


def _encoded(
    loaded: Any,
    samples: Iterable[tuple[Sample, Path]],
    cameras: str,
    views: tuple[bool, ...],
    aside: SetAside,
    bar: Any,
) -> Iterator[EncodedSample]:
    def encode(placed: tuple[Sample, Path], like: Sequence[EncodedSample | None]) -> list[EncodedSample] | SampleError:
        sample, dataset = placed
        try:
            rows = [
                encode_row(loaded, sample, dataset, cameras, mirrored, picture)
                for mirrored, picture in zip(views, like, strict=True)
            ]
            # Two datasets name their pairs alike: the first frame of each is one second old.
            return [replace(row, pair=f"{dataset}: {row.pair}") if row.pair else row for row in rows]
        except SampleError as fault:
            return fault
        except (ValueError, cv2.error, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            return SampleError(sample.id, "cannot be encoded", MonoError(f"it cannot be encoded: {error}"))

    def encode_all(of_one_frame: Sequence[tuple[Sample, Path]]) -> list[list[EncodedSample] | SampleError]:
        done: list[list[EncodedSample] | SampleError] = []
        like: Sequence[EncodedSample | None] = [None] * len(views)
        for placed in of_one_frame:
            done.append(rows := encode(placed, like))
            like = like if isinstance(rows, SampleError) else rows
        return done

    # The samples of a pair stand side by side and have their frames in common.
    frames = (list(group) for _, group in groupby(samples, lambda placed: (placed[1], placed[0].frames)))
    with ThreadPoolExecutor(core_count(), thread_name_prefix="encode") as pool:
        # A few at a time: rows that wait to be written would fill the memory.
        while part := list(islice(frames, _ENCODED_AT_ONCE)):
            for group, done in zip(part, pool.map(encode_all, part), strict=True):
                bar.update(len(views) * len(group))
                usable: list[EncodedSample] = []
                for (sample, _), rows in zip(group, done, strict=True):
                    if isinstance(rows, SampleError):
                        aside.add(sample.id, rows.reason, rows)
                    else:
                        usable += rows
                yield from told_apart_unasked(usable)


def told_apart_unasked(rows: Sequence[EncodedSample]) -> list[EncodedSample]:
    """Rows of one frame; one that has the words of another once its wish is left out keeps its wish.

    Wish dropout is to teach that plain words decide. Of two futures with the same words it would teach the mean.
    """
    count = Counter(words for row in rows for words in (_words(row, row.input_ids), _words(row, row.unasked_ids)))
    return [row if count[_words(row, row.unasked_ids)] == 1 else replace(row, unasked_ids=None) for row in rows]


def _words(row: EncodedSample, ids: Tensor | None) -> tuple[bool, tuple[int, ...]]:
    return row.is_mirrored, () if ids is None else tuple(ids.tolist())


def write_rows(rows: Iterable[EncodedSample], path: Path) -> None:
    """Write rows as they come, one in memory at a time; the index lies beside the data.

    Raises:
        MonoError: the disk is full or cannot be written.
    """
    index: list[dict[str, Any]] = []
    # What rows share is written once: the last tensor of each name and view, and where it lies.
    last: dict[tuple[str, bool], tuple[Tensor, list[Any]]] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as data:
            for row in rows:
                places: dict[str, Any] = {}
                for name, tensor in _tensors(row).items():
                    before = last.get((name, row.is_mirrored))
                    if before is not None and before[0] is tensor:
                        places[name] = before[1]
                        continue
                    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
                    places[name] = [data.tell(), str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
                    data.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
                    last[name, row.is_mirrored] = tensor, places[name]
                index.append({"sample_id": row.sample_id, "pair": row.pair, "tensors": places})
        write_atomically(path.with_suffix(".json"), json.dumps(index))
    except OSError as error:
        found = f"the encoded samples {path} cannot be written: {error}"
        raise MonoError(found, "room on the disk", "make room, or choose an --out on another disk") from error


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
        rows.append(EncodedSample(entry["sample_id"], pair=entry.get("pair", ""), **tensors))
    return rows


def _tensors(row: EncodedSample) -> dict[str, Tensor]:
    """A row's tensors by name, those of its features included."""
    tensors = {}
    for each in fields(row):
        value = getattr(row, each.name)
        if isinstance(value, VisionFeatures):
            tensors["embeds"] = value.embeds
            tensors |= {f"deepstack{layer:02d}": values for layer, values in enumerate(value.deepstack)}
        elif isinstance(value, Tensor):
            tensors[each.name] = value
    return tensors
