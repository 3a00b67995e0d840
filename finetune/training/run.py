"""A run folder is new, unfinished or finished: the same command goes on with an unfinished run and spoils no other.

And its loss curve, a line of JSON a step and the same for TensorBoard.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from collector.common.errors import MonoError, require
from collector.common.files import write_atomically
from collector.common.output_folder import PROVENANCE_FILE, named, refuse_within
from collector.common.run_folder import git_commit, hash_path, open_run, plain
from collector.common.text_files import read_json, read_json_lines, read_yaml

# What a training run writes beside config.yaml and provenance.json; metrics.json comes last of all.
METRICS = "metrics.json"
ROWS, CHECKPOINTS = "rows", "checkpoints"
_VERB = "finetune"
_OWN = (METRICS, "adapter", "model", CHECKPOINTS, ROWS, "tensorboard", "training.jsonl", "set_aside.jsonl")
# What a run writes into each of its folders; anything else there is somebody's.
_INSIDE = {
    "adapter": r"README\.md|adapter_config\.json|adapter_model\.safetensors|alpamayo_mono\.json",
    "model": r"README\.md|(vlm_|preprocessor_)?config\.json|model\.safetensors|tokenizer.*\.json",
    CHECKPOINTS: r"step-\d+\.(safetensors|part)",
    ROWS: r"(train|val)\.(bin|json)|set_aside\.jsonl",
    "tensorboard": r"events\.out\.tfevents\..*",
}
# Settings that change where, or how safely, but not what.
_FREE = ("out", "overwrite", "checkpoint_every", "threads")
_PATHS = ("model", "dataset", "more_datasets", "start_from")


def open_training_run(config: Any, inputs: list[Path], overwrite: bool) -> None:
    """Make the run folder of a training run, or find it unfinished and leave it as it is.

    The contents of ``inputs`` must be those the run began with; ``overwrite`` forgets what the folder holds of a run.

    Raises:
        MonoError: the folder holds a finished run, one of other settings or inputs, or files of something else.
    """
    folder = Path(config.out)
    settings, provenance = folder / "config.yaml", folder / PROVENANCE_FILE
    known = [name for name in _OWN if os.path.lexists(folder / name)]
    if known and not (settings.is_file() and provenance.is_file()):
        found = f"{folder} holds {', '.join(known)} but no config.yaml and {PROVENANCE_FILE} to tell of which run"
        raise MonoError(found, "an absent or empty folder", "choose another --out")
    if overwrite and known:
        _forget(folder, known, config, inputs)
        open_run(folder, config, inputs, _VERB)
        return
    if finished_metrics(config) is not None:
        found, expected = f"{folder} holds a finished run with these settings", "a run to begin or to go on with"
        raise MonoError(found, expected, "use what it made, choose another --out, or add --overwrite")
    if not (settings.is_file() and provenance.is_file()):
        # A new run, or one killed between the two files: nothing else can be there yet.
        open_run(folder, config, inputs, _VERB)
        return
    do = "choose another --out, or add --overwrite to begin again"
    began = read_json(provenance, do)
    hashes = began.get("inputs")
    if not isinstance(hashes, dict) or len(hashes) != len(inputs):
        raise MonoError(f"{provenance} tells not of what the run was made", "the hashes of its inputs", do)
    for path, before in zip(inputs, hashes.values(), strict=True):
        if hash_path(path) != before:
            found = f"{path} has changed since the run in {folder} began"
            raise MonoError(found, "the same contents", do)
    if (commit := began.get("commit")) != git_commit():
        print(f"{folder} was begun by another version of this program ({commit}); its numbers may differ")


def finished_metrics(config: Any) -> dict[str, Any] | None:
    """The metrics of a finished run of these settings in ``config.out``; None where it is not finished.

    Raises:
        MonoError: the folder holds a run with other settings, finished or not.
    """
    folder = Path(config.out)
    if not (folder / "config.yaml").is_file():
        return None
    changes = setting_changes(read_yaml(folder / "config.yaml"), plain(config))
    if changes:
        found = f"{folder} holds a run with other settings: {'; '.join(changes)}"
        raise MonoError(found, "the settings it began with", "choose another --out, or add --overwrite to begin again")
    path = folder / METRICS
    return read_json(path, "choose another --out, or add --overwrite") if path.is_file() else None


def _forget(folder: Path, known: list[str], config: Any, inputs: list[Path]) -> None:
    """Remove what a run left, and say so; a model beside the adapter of a run is somebody else's (MonoError)."""
    before = read_yaml(folder / "config.yaml")
    strange = {"adapter", "model"} - {product_of(before.get("method"))}
    product = product_of(getattr(config, "method", None))
    if product in strange and product in known:
        found = f"{folder / product} was not made by the run in {folder}"
        raise MonoError(found, "nothing under that name", "choose another --out, or move it away")
    ours = [folder / name for name in known if name not in strange]
    refuse_within(ours, inputs)
    for place in ours:
        if others := [entry for entry in _entries(place) if not _is_ours(entry)]:
            found = f"{place} holds {named(others)}, which no run made"
            raise MonoError(found, "nothing but what is to be overwritten", "move it away, or choose another --out")
    if ours:
        print(f"removing from {folder}, to begin again: {', '.join(path.name for path in ours)}", flush=True)
    for place in ours:
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def product_of(method: str | None) -> str:
    """The folder in OUT that a run makes."""
    return "model" if method == "full" else "adapter"


def remove_intermediate(folder: Path) -> None:
    """Delete what a finished run needs no more, gigabytes of it at the released size; what else lies there stays."""
    for name in (ROWS, CHECKPOINTS):
        for entry in filter(_is_ours, _entries(folder / name)):
            entry.unlink(missing_ok=True)
        with suppress(OSError):
            (folder / name).rmdir()


def _entries(place: Path) -> list[Path]:
    """What lies in a folder of a run; nothing where there is none, or a link, which alone is taken away."""
    return sorted(place.iterdir()) if place.is_dir() and not place.is_symlink() else []


def _is_ours(entry: Path) -> bool:
    return bool(re.fullmatch(_INSIDE[entry.parent.name], entry.name)) and not entry.is_dir()


def setting_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences that make it another run, in words."""
    changes = []
    for key in sorted((set(before) | set(now)) - set(_FREE)):
        old, new = before.get(key), now.get(key)
        if key in _PATHS and _real(old or []) == _real(new or []):
            continue
        if old != new:
            changes.append(f"{key} {old} there, {new} now")
    return changes


def _real(places: object) -> object:
    """A path, or each of a list, as it is without links; what is no place stays as it was written."""
    if isinstance(places, list):
        return [_real(place) for place in places]
    return str(Path(str(places)).resolve()) if Path(str(places)).exists() else places


class TrainingLog:
    """``training.jsonl`` and ``tensorboard/`` of a run folder.

    What was written of steps after ``done`` is dropped, because they are done again.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        tensorboard = require("torch.utils.tensorboard", "model")
        path = folder / "training.jsonl"
        write_atomically(path, "".join(line + "\n" for line in kept_lines(path, done)))
        self._lines = path.open("a", encoding="utf-8")
        self._events = tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def write(self, step: int, **values: float) -> None:
        """One line (MonoError: the disk is full)."""
        line: dict[str, Any] = {"step": step, **{key: round(value, 6) for key, value in values.items()}}
        try:
            self._lines.write(json.dumps(line) + "\n")
            self._lines.flush()
        except OSError as error:
            found = f"{self._lines.name} cannot be written: {error}"
            do = "make room and run the same command again; it goes on from the last checkpoint"
            raise MonoError(found, "room on the disk", do) from error
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
    """Lines up to a step, in order. Without steps done, none."""
    if not done or not path.is_file():
        return []
    steps = read_json_lines(path, "the log", lambda values: (values["step"] <= done, json.dumps(values)))
    return [line for is_done, line in steps if is_done]
