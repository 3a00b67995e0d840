"""The loss curve of a run: a line of JSON a step, and the same for TensorBoard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError, require
from collector.common.files import write_atomically


class TrainingLog:
    """``training.jsonl`` and ``tensorboard/`` of a run folder.

    Args:
        folder: the run folder.
        done: steps that stay; what was written of later ones is dropped, because they are done again.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        tensorboard = require("torch.utils.tensorboard", "model")
        path = folder / "training.jsonl"
        write_atomically(path, "".join(line + "\n" for line in kept_lines(path, done)))
        self._lines = path.open("a", encoding="utf-8")
        self._events = tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def write(self, step: int, **values: float) -> None:
        """One line.

        Raises:
            MonoError: the disk is full.
        """
        line: dict[str, Any] = {"step": step, **{key: round(value, 6) for key, value in values.items()}}
        try:
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()
        except OSError as error:
            raise MonoError(
                f"{self._lines.name} cannot be written: {error}",
                "room on the disk",
                "make room and run the same command again; it goes on from the last checkpoint",
            ) from error
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def flush_to_disk(self) -> None:
        """Before a checkpoint: no step may be done without its line."""
        os.fsync(self._lines.fileno())
        self._events.flush()

    def close(self) -> None:
        """Close both."""
        self._lines.close()
        self._events.close()


def kept_lines(path: Path, done: int) -> list[str]:
    """Lines up to a step, in order; a line torn by a kill is none. Without steps done, none."""
    if not done or not path.is_file():
        return []
    kept = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept
