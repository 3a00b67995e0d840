"""The whole mission in one command: record, build, finetune, drive, measure, report.

Every stage is the command a person would type; the demo prints it, says how long the rest will take, keeps its log,
times it, and on a second run goes on after the last stage that finished. The drives over ROS 2 keep the clock and leave
half of two cores idle: the comparison begins beside them, on what they leave.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from closed_loop.demo_folder import (
    OWNER,
    STAGES_FILE,
    clear,
    end_left_over,
    end_processes,
    finished_unnoted,
    take_folder,
)
from closed_loop.demo_stages import DemoConfig, Stage, stages
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.output_folder import OutputFolder
from collector.common.start import module_command
from collector.ros.transport import without_our_libraries

# What the estimate trusts the expected seconds with before this machine has shown its own speed.
PRIOR_S = 60.0
_LOOK_S = 0.2  # between looks at what a stage says


def _environment(out: Path) -> dict[str, str]:
    """For a stage's processes: a ROS domain of this demo's own, lest it hears another simulator on this machine.

    1 to 101 keep every port below Linux's ephemeral ones. And whose they are, for the next call to find them.
    """
    return {"ROS_DOMAIN_ID": str(1 + os.getpid() % 101), **without_our_libraries(), OWNER: str(out)}


def begin_stage(stage: Stage, logs: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the command of a stage of the demo in ``out``; what it says goes to its log."""
    # The nicest of all beside others: nodes that keep the clock come first.
    aside = ("nice", "-n", "19") if stage.beside else ()
    command = [*aside, *module_command("closed_loop.cli"), *stage.arguments]
    with (logs / f"{stage.name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(out))


def run_stage(stage: Stage, logs: Path, out: Path, begun: subprocess.Popen[bytes] | None = None) -> float:
    """Run one stage of the demo in ``out``, or the rest of one that has ``begun``, and show what it says.

    Returns:
        Wall seconds from now on.

    Raises:
        MonoError: the stage failed and the demo cannot go on without it.
    """
    print(f"$ alpamayo-mono {shlex.join(stage.arguments)}", flush=True)
    began = time.monotonic()
    log_path = logs / f"{stage.name}.log"
    try:
        process = begun or begin_stage(stage, logs, out)
        with log_path.open("rb") as log:
            ended = False
            while not ended:
                ended = process.poll() is not None  # and what it said last is in its log
                while chunk := log.read(65536):
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.flush()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
    except BaseException:  # Ctrl-C, which a terminal sends to all, and kill -INT or a broken pipe to us alone
        end_processes(out, first=signal.SIGINT)
        raise
    seconds = time.monotonic() - began
    is_result = stage.may_fail and process.returncode == 1 and (out / stage.folder / "metrics.json").is_file()
    if process.returncode and not is_result:
        raise MonoError(
            f"the stage {stage.name!r} ended with exit code {process.returncode}",
            "exit code 0",
            f"read {log_path}, mend the cause, and run the demo again: finished stages are kept",
        )
    print(f"== {stage.name}: {seconds:.0f} s", flush=True)
    return seconds


def remaining_s(every: Sequence[Stage], times: Mapping[str, float]) -> float:
    """Wall seconds the unfinished stages will take if this machine goes on as in the finished ones."""
    done = [stage for stage in every if stage.name in times]
    pace = (PRIOR_S + sum(times[stage.name] for stage in done)) / (PRIOR_S + sum(stage.expected_s for stage in done))
    return pace * sum(stage.expected_s for stage in every if stage.name not in times)


@contextmanager
def _beside(out: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The stages that were begun beside others; what of them still runs when the demo fails is ended."""
    begun: dict[str, subprocess.Popen[bytes]] = {}
    try:
        yield begun
    finally:
        if any(process.poll() is None for process in begun.values()):
            end_processes(out)


def demo(config: DemoConfig) -> Path:
    """Run all stages that have not finished yet, after ending what an earlier, killed call left running.

    Returns:
        The report page.

    Raises:
        MonoError: a stage failed; the folder is in use, or holds another demo or things that no demo made.
    """
    with OutputFolder(config.out) as out, _beside(out.path) as begun:
        every, logs = stages(config), config.out / "logs"
        times = take_folder(out, config, [stage.name for stage in every], config.fresh)
        times.pop("report", None)
        end_left_over(out.path)
        logs.mkdir(exist_ok=True)
        if config.fresh:
            for stage in filter(lambda stage: stage.folder, every):
                clear(config.out / stage.folder, logs / f"{stage.name}.log")
        rebuilt = False
        for number, stage in enumerate(every, start=1):
            place = f"\n== stage {number} of {len(every)}, {stage.name}"
            if stage.name not in times and stage.resumes and not rebuilt:
                times |= finished_unnoted(config.out / stage.folder, stage.name)
            if stage.name in times:
                print(f"{place}: finished before ({times[stage.name]:.0f} s)", flush=True)
                continue
            if stage.folder and (not stage.resumes or rebuilt):
                clear(config.out / stage.folder, logs / f"{stage.name}.log")
            rebuilt = rebuilt or stage.name == "build"
            left = remaining_s(every, times)
            print(f"{place}: {stage.purpose} (about {max(1, round(left / 60.0))} min left)", flush=True)
            for other in every:
                if stage.name in other.beside and other.name not in {*times, *begun}:
                    print(f"beside it begins {other.name}: {other.purpose}", flush=True)
                    begun[other.name] = begin_stage(other, logs, out.path)
            times[stage.name] = round(run_stage(stage, logs, out.path, begun.get(stage.name)), 1)
            write_atomically(config.out / STAGES_FILE, json.dumps(times, indent=2) + "\n")
    return config.out / "report.html"


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono demo``."""
    config = command_line(DemoConfig, argv, "alpamayo-mono demo")
    page = demo(config)
    table = config.out / "compare" / "table.txt"
    if table.is_file():
        print("\n" + table.read_text())
    print(f"report: {page.resolve()}")


if __name__ == "__main__":
    main()
