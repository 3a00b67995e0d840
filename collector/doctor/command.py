"""Verb ``doctor``: gather the facts, judge them, print the table."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from collector.common.errors import MonoError
from collector.common.model_files import find_model
from collector.common.run_folder import command_line, plain
from collector.doctor.checks import examine
from collector.doctor.config import DoctorConfig
from collector.doctor.facts import Facts, FolderFacts, MachineFacts, RosFacts
from collector.doctor.machine import (
    ADAPTER_FILES,
    ADAPTER_WEIGHTS,
    MODEL_FILES,
    MODEL_WEIGHTS,
    lo_multicast,
    look_at_disk,
    look_at_folder,
    look_at_python,
    rmem_max,
)
from collector.doctor.rows import Row, is_useful, table
from collector.ros.session import ros_session

EXIT_USELESS = 1
_START_S = 90.0  # one second, unless the machine is very busy


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono doctor``: whether a run would be worth starting; 0 if so, 1 if not."""
    config = command_line(DoctorConfig, argv, "alpamayo-mono doctor")
    if not config.json:
        print(f"listening for {config.seconds:g} s ...", file=sys.stderr, flush=True)
    rows = examine(gather(config), config)
    if config.json:
        print(json.dumps({"for": config.purpose, "useful": is_useful(rows), "rows": plain(rows)}, indent=2))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        console.print(table(rows))
        console.print(verdict(rows, config.purpose), markup=False)
    return 0 if is_useful(rows) else EXIT_USELESS


def verdict(rows: Sequence[Row], purpose: str) -> str:
    """The last line: what the table means."""
    run = {"record": "recording", "drive": "drive"}[purpose]
    failed = [row.name for row in rows if row.state == "failed"]
    warned = sum(row.state == "warning" for row in rows)
    warnings = f"{warned} warning{'s' if warned != 1 else ''}"
    if failed:
        return f"A {run} would be useless now: {', '.join(failed)} ({warnings})."
    return f"Ready: a {run} can start" + (f" ({warnings})." if warned else ".")


def gather(config: DoctorConfig) -> Facts:
    """Everything there is to know; the policy's Python imports torch while we listen."""
    with ThreadPoolExecutor(1) as pool:
        wants_model = config.purpose == "drive" and not config.own_policy
        with_adapter = config.adapter is not None
        python = pool.submit(look_at_python, config.policy_python, with_adapter) if wants_model else None
        ros, ros_error, ros_cure = _look_at_ros(config)
        machine = _look_at_machine(config)
        return Facts(replace(machine, python=python.result() if python else None), ros, ros_error, ros_cure)


def _look_at_machine(config: DoctorConfig) -> MachineFacts:
    folders: list[FolderFacts] = []
    if config.purpose == "drive" and config.model is not None:
        folder = find_model(config.model)
        # The released repositories hold no tokenizer: it is their backbone's.
        files = MODEL_FILES if folder == config.model else MODEL_FILES[:1]
        folders.append(look_at_folder("model", folder, files, MODEL_WEIGHTS))
    if config.purpose == "drive" and config.adapter is not None:
        folders.append(look_at_folder("adapter", config.adapter, ADAPTER_FILES, ADAPTER_WEIGHTS))
    disk = look_at_disk(config.out or Path("runs"), is_new=config.out is not None and config.purpose == "record")
    return MachineFacts(disk, rmem_max(), lo_multicast(), tuple(folders))


def _look_at_ros(config: DoctorConfig) -> tuple[RosFacts | None, str, str]:
    """The ROS facts, or why there are none and the cure for that (empty for the usual one)."""
    error = _dies_at_start()
    if error:
        return None, error, ""
    try:
        # Not the command line's words: rclpy would read them as its own.
        with ros_session([]) as session:
            from collector.doctor.node import listen

            return listen(session, config), "", ""
    except MonoError as failure:
        return None, failure.found, "" if "rclpy" in failure.found else failure.do
    except (ImportError, RuntimeError) as failure:
        # RCLError is a RuntimeError: a middleware that cannot join its domain ends here.
        return None, f"{type(failure).__name__}: {failure}", ""


def _dies_at_start() -> str:
    """Why ROS would take this process down, empty when it would not.

    A middleware in RMW_IMPLEMENTATION that is not installed, or a ROS_DOMAIN_ID out of range, ends the process without
    an exception: another process is to find that out.
    """
    if importlib.util.find_spec("rclpy") is None:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import rclpy; rclpy.init(); rclpy.create_node('alpamayo_doctor')"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_START_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"a node did not start in {_START_S:.0f} s"
    if done.returncode == 0:
        return ""
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).strip() or f"exit code {done.returncode}"
    return f"no node starts: {said.splitlines()[-1]}"
