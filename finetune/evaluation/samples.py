"""Which samples are judged: evenly spread ones of a split, or one clip of NVIDIA's PhysicalAI-AV by its id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from collector.common.errors import MonoError
from collector.dataset.schema import Sample, read_samples


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples, evenly spread; all of them for 0."""
    if not limit or len(samples) <= limit:
        return list(samples)
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).astype(int)]


def split_samples(folder: Path, split: str) -> list[Sample]:
    """The samples of one split.

    Raises:
        MonoError: there is none.
    """
    samples = [sample for sample in read_samples(folder) if sample.split == split]
    if not samples:
        raise MonoError(f"no sample of split {split!r} in {folder}", "at least one", "build with --val-fraction 0.2")
    return samples


def build_clip(data: Path, clip: str, folder: Path) -> str:
    """Cut every frame of a clip that has a whole history and future into samples.

    Args:
        data: what the package physical_ai_av downloaded into.
        clip: its id.
        folder: dataset folder to write; one that is there is replaced.

    Returns:
        The count of frames, for the terminal.

    Raises:
        MonoError: the clip is not there (with ids that are near), cannot be read, or gives no sample.
    """
    from collector.dataset.physical_ai import PhysicalAiConfig, PhysicalAiData, build_physical_ai

    source = PhysicalAiData(data)
    if not source.has(clip):
        held = source.clips()
        raise MonoError(
            f"no clip {clip!r} among the {len(held)} downloaded into {data}",
            "one of these: " + ", ".join(near_matches(clip, held)) if held else "a downloaded clip",
            "check the id, or download it with the package physical_ai_av (build-physical-ai --help says how)",
        )
    report, left_out = build_physical_ai(
        PhysicalAiConfig(data, folder, clips=(clip,), val_fraction=0.0, straights=True, overwrite=True)
    )
    if left_out:
        raise MonoError(f"clip {clip}: {left_out[clip]}", "camera and motion of 20 s", "download it again")
    if report.kept == 0:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(report.rejected.items()))
        raise MonoError(f"clip {clip} gives no sample ({why})", "at least one whole history and future")
    return report.table()


def near_matches(clip: str, held: list[str], most: int = 5) -> list[str]:
    """Ids that begin alike, then ids that look alike, then simply the first ones."""
    begins = [name for name in held if clip and (name.startswith(clip) or clip.startswith(name))]
    alike = difflib.get_close_matches(clip, held, n=most, cutoff=0.5)
    found = list(dict.fromkeys([*begins, *alike])) or held
    return found[:most]


def folder_name(clip: str) -> str:
    """What the folder of a clip is called, whatever the id is made of."""
    return "clip_" + re.sub(r"[^\w.-]", "_", clip)
