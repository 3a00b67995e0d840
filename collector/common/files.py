"""Where this project lies, and files that are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

# The folder that holds the three packages: a checkout or site-packages.
PROJECT_ROOT = Path(__file__).resolve().parents[2]


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def weights_defect(path: Path) -> str:
    """What is wrong with a safetensors file by its header and its length, empty when they agree.

    A broken download is too short for its header, and a Git LFS pointer has none.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = path.stat().st_size
            if length > size - 8:
                return f"{path.name} is damaged: {size} bytes, and not the beginning of a safetensors file"
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        return f"no {path.name}" if isinstance(error, FileNotFoundError) else f"{path.name}: {error.strerror}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return f"{path.name} is damaged: its header cannot be read"
    short = 8 + length + end - size
    return f"{path.name} is damaged: {short} bytes are missing at its end" if short > 0 else ""
