"""Verb ``doctor``: gather the facts, judge them, print the table."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.run_folder import plain
from collector.common.start import LEAVE_WORKING_FOLDER
from collector.common.tables import Cell, Console, Styled, Table
from collector.doctor.checks import examine
from collector.doctor.config import DoctorConfig
from collector.doctor.facts import Facts, RosFacts, Row
from collector.doctor.machine import look_at_disk, look_at_files, look_at_python
from collector.ros.session import ros_session
from collector.ros.transport import network_settings

EXIT_USELESS = 1
_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "bold red")}
_START_S = 90.0  # one second, unless the machine is very busy
_START = "import rclpy; rclpy.init(); rclpy.create_node('alpamayo_doctor')"


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono doctor``: whether a run would be worth starting; 0 if so, 1 if not."""
    config = command_line(DoctorConfig, argv, "alpamayo-mono doctor")
    if not config.json:
        print(f"listening for {config.seconds:g} s ...", file=sys.stderr, flush=True)
    rows = examine(gather(config), config)
    if config.json:
        print(json.dumps({"for": config.purpose, "useful": is_useful(rows), "rows": plain(rows)}, indent=2))
    else:
        console = Console()
        console.print(table(rows))
        console.print(verdict(rows, config.purpose))
    return 0 if is_useful(rows) else EXIT_USELESS


def is_useful(rows: Iterable[Row]) -> bool:
    """Whether a run would be worth starting: no row failed."""
    return all(row.state != "failed" for row in rows)


def folded(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by table line: bad rows that say the same of several topics share one, at the place of the first."""
    lines: dict[tuple[object, ...], list[Row]] = {}
    for number, row in enumerate(rows):
        key = (number,) if row.state == "ok" or not row.topic else (row.state, row.found, row.cure)
        lines.setdefault(key, []).append(row)
    return list(lines.values())


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table; the cure stands below what was found, so that 80 columns are enough."""
    shown: list[Sequence[Cell]] = []
    for line in folded(rows):
        row = line[0]
        mark, style = _MARKS[row.state]
        topics = [entry.topic for entry in line if entry.topic]
        found = [Styled(("\n" if len(topics) > 1 else ": ").join([*topics, row.found]))]
        if row.cure:
            found.append(Styled(f"-> {row.cure}", style.replace("bold ", "")))
        shown.append(([Styled(mark, style)], "\n".join(entry.name for entry in line), found))
    return Table("", ("", "check", "found"), shown, left=(0, 1, 2), whole=(0, 1))


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
    is_drive = config.purpose == "drive"
    with ThreadPoolExecutor(1) as pool:
        wanted = is_drive and not config.own_policy
        words = config.policy_python, config.adapter is not None, config.device
        asked = pool.submit(look_at_python, *words) if wanted else None
        ros, ros_error, ros_cure = _look_at_ros(config)
        rows = look_at_files(config.model, config.adapter) if is_drive else []
        disk = look_at_disk(config.out or Path("runs"), is_new=config.out is not None and not is_drive)
        if asked is not None:
            rows.append(asked.result())
        rmem_max, lo_multicast = network_settings()
        return Facts(disk, rmem_max, lo_multicast, tuple(rows), ros, ros_error, ros_cure)


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
            [sys.executable, "-c", LEAVE_WORKING_FOLDER + _START],
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
