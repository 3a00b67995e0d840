"""The folder of a demo: whose it is, which stages are finished in it, and what a killed call left in it and running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from collector.common.errors import MonoError
from collector.common.output_folder import PROVENANCE_FILE, OutputFolder, named
from collector.common.run_folder import open_run, plain
from collector.common.text_files import read_json, read_yaml
from finetune.training.run import setting_changes

STAGES_FILE = "stages.json"
# What stages write; what else lies in their folders is somebody's.
_MADE = re.compile(
    r"[^.]+|.*\.(mcap|yaml|json|jsonl|jpg|png|csv|npz|bin|safetensors|part)|tables?\.txt|definitions\.txt|README\.md"
    r"|events\.out\.tfevents\..*|made-by-alpamayo-mono"
)
_PATIENCE_S = 20.0  # a recorder finishes its bag
OWNER = "ALPAMAYO_MONO_DEMO"  # in the environment of every process of a demo: the folder of the run


def take_folder(out: OutputFolder, config: object, names: Sequence[str], fresh: bool) -> dict[str, float]:
    """Take the folder for this demo; returns the seconds of each stage (of these names) that is finished in it.

    Raises:
        MonoError: the folder holds a demo with other settings or something else, or its ``stages.json`` is torn.
    """
    times = {} if fresh else read_times(out.path, names)
    settings = out.path / "config.yaml"
    if (out.path / PROVENANCE_FILE).is_file():
        out.require_run("demo")
        changes = setting_changes(read_yaml(settings), plain(config)) if settings.is_file() and not fresh else []
        changes = [change for change in changes if not change.startswith("fresh ")]
        if changes:
            found = f"{out.path} holds a demo with other settings: {'; '.join(changes)}"
            raise MonoError(found, "the settings it began with", "choose another --out, or --fresh to begin again")
    elif read_times(out.path, names):  # of a version before 0.3
        print(f"{out.path} was begun by an earlier version, which kept no settings; what it finished is taken over")
    else:
        out.require_empty("an absent or empty folder, or one of an earlier demo")
    open_run(out.path, config, (), "demo")
    return times


def read_times(out: Path, names: Sequence[str]) -> dict[str, float]:
    """Seconds of the finished stages of a demo, none where there is none (MonoError: the file is torn)."""
    path = out / STAGES_FILE
    if not path.is_file():
        return {}
    do = "delete it and run the demo again: finished stages are then repeated; or begin again in another --out"
    times: dict[str, float] = read_json(path, do, "seconds of each finished stage")
    if not all(name in names and type(seconds) in (int, float) for name, seconds in times.items()):
        raise MonoError(f"{path} was not written by a demo", "seconds of each finished stage", do)
    return times


def clear(folder: Path, log: Path) -> None:
    """Remove what a stage that did not finish left; without a log of that stage it was not made here (MonoError)."""
    if not os.path.lexists(folder):
        return
    if not log.is_file() or folder.is_symlink() or not folder.is_dir():
        do = "move it away, or choose another --out"
        raise MonoError(f"{folder} was not made by this demo", f"nothing there before the stage {log.stem!r}", do)
    if strange := [path for path in sorted(folder.rglob("*")) if not (path.is_dir() or _MADE.fullmatch(path.name))]:
        found = f"{folder}, which would be made anew, holds {named(strange)}, which no stage makes"
        raise MonoError(found, "nothing but the demo's own files", "move it away, or choose another --out")
    OutputFolder(folder).close()  # says who writes to it, if somebody does
    print(f"removing {folder}, left by an earlier call", flush=True)
    shutil.rmtree(folder)


def finished_unnoted(folder: Path, name: str) -> dict[str, float]:
    """The seconds of a stage that had finished when a kill kept the demo from noting it; empty where it had not."""
    began, ended = folder / PROVENANCE_FILE, folder / "metrics.json"
    if not (began.is_file() and ended.is_file()):
        return {}
    return {name: round(ended.stat().st_mtime - began.stat().st_mtime, 1)}


def end_left_over(out: Path, patience_s: float = _PATIENCE_S) -> None:
    """End the processes that a killed demo in this folder left running, and say so."""
    if left := _processes_of(out):
        print(f"ending what a killed demo left running: process {', '.join(map(str, left))}", flush=True)
        end_processes(out, patience_s)


def end_processes(out: Path, patience_s: float = _PATIENCE_S, first: signal.Signals = signal.SIGTERM) -> None:
    """End the processes of a demo's stage, which are told by their environment; what hears no signal is killed."""
    for number in (first, signal.SIGKILL):
        for pid in _processes_of(out):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until_s = time.monotonic() + patience_s
        while _processes_of(out) and time.monotonic() < until_s:
            time.sleep(0.1)


def _processes_of(out: Path) -> list[int]:
    mark = f"{OWNER}={out}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return sorted(found)
