"""Where a model lies on this machine, and whether its weights are whole, without loading them."""

from __future__ import annotations

import json
import os
from pathlib import Path

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
    """What is wrong with a safetensors file by its header and its length, empty when they agree.

    A broken download is too short for its header, and a Git LFS pointer has none.
    """
    try:
        with open_regular(path) as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = path.stat().st_size
            if length > min(size - 8, HEADER_BYTES):
                return f"{path.name} is damaged: {size} bytes, and not the beginning of a safetensors file"
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        return f"no {path.name}" if isinstance(error, FileNotFoundError) else f"{path.name}: {error.strerror}"
    except MonoError as error:
        return error.found
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return f"{path.name} is damaged: its header cannot be read"
    short = 8 + length + end - size
    return f"{path.name} is damaged: {short} bytes are missing at its end" if short > 0 else ""
