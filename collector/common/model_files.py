"""Where a model lies on this machine, and whether its weights are whole, without loading them."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError
from collector.common.files import open_regular, with_home

HEADER_BYTES = 25_000_000  # of a safetensors file; that of the released weights has 0.2 MB


def find_model(name: Path) -> Path:
    """A model folder, or for an id ``owner/name`` the folder in which the Hugging Face cache keeps that model."""
    if name.is_dir() or name.is_absolute() or len(name.parts) != 2:
        return name
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    cache = with_home(os.environ.get("HF_HUB_CACHE") or home / "hub")
    place = cache / ("models--" + "--".join(name.parts))
    try:
        return place / "snapshots" / (place / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # absent, or no text
        return name


def weights_defect(path: Path) -> str:
    """What is wrong with a safetensors file by its header and its length, empty when they agree."""
    try:
        weights_header(path)
    except MonoError as error:
        return error.found
    return ""


def weights_header(path: Path) -> tuple[dict[str, Any], int]:
    """The entries of a safetensors file, and the byte at which their contents begin.

    Raises:
        MonoError: absent or unreadable, no such header (as in a Git LFS pointer), too short for it (as after a broken
            download), or tensors that do not lie one behind the other.
    """
    expected, do = "a complete safetensors file", "download or write it again"
    try:
        with open_regular(path) as stream:
            length, size = int.from_bytes(stream.read(8), "little"), os.fstat(stream.fileno()).st_size
            if length > min(size - 8, HEADER_BYTES):
                found = f"{path.name} is damaged: {size} bytes, and not the beginning of a safetensors file"
                raise MonoError(found, expected, do)
            header: dict[str, Any] = json.loads(stream.read(length), object_pairs_hook=_once)
        header.pop("__metadata__", None)
        places = sorted(_place(entry) for entry in header.values())
        short = 8 + length + max((end for _, end in places), default=0) - size
    except OSError as error:
        found = f"no {path.name}" if isinstance(error, FileNotFoundError) else f"{path.name}: {error.strerror}"
        raise MonoError(found, expected, do) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise MonoError(f"{path.name} is damaged: its header cannot be read", expected, do) from error
    if short > 0:
        raise MonoError(f"{path.name} is damaged: {short} bytes are missing at its end", expected, do)
    if short < 0 or any(start != end for (_, end), (start, _) in pairwise([(0, 0), *places])):
        found = f"{path.name} is damaged: its tensors overlap, or leave bytes between or behind them"
        raise MonoError(found, expected, do)
    return header, 8 + length


def _place(entry: dict[str, Any]) -> tuple[int, int]:
    """First byte and end of a tensor's contents."""
    start, end = entry["data_offsets"]
    if not (type(start) is type(end) is int and 0 <= start <= end):
        raise ValueError
    return start, end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no name stands twice."""
    if len(made := dict(pairs)) < len(pairs):
        raise ValueError
    return made
