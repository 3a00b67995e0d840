"""Where this project lies, and files that are whole or absent."""

from __future__ import annotations

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
