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
from dataclasses import dataclass
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
from collector.common.arguments import Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.files import write_atomically
from collector.common.output_folder import OutputFolder
from collector.common.start import module_command
from collector.ros.parameters import LONGEST_S
from collector.ros.transport import without_our_libraries
from finetune import TINY_BASE


@dataclass(frozen=True)
class DemoConfig(Arguments):
    """Run the whole loop on this machine: no ROS installation, no GPU and no weights needed."""

    out: Path = Path("runs/demo")  # folder of the run; a finished stage in it is not repeated.
    courses: int = argument(
        50, "seeded random courses driven while recording (never the ones driven in the comparison)", 1, 10_000
    )
    episode_s: float = argument(12.0, "simulated seconds on each of them", 1.0, LONGEST_S)
    time_scale: float = argument(10.0, "simulated seconds per second while recording", 0.05, 20.0)
    steps: int = argument(1000, "finetuning steps", 1, 10_000_000)
    laps: int = argument(1, "laps of the ROS drive before and after", 1, 1000)
    drive_timeout_s: float = argument(120.0, "simulated seconds after which an unfinished drive ends", 1.0, LONGEST_S)
    starts: int = argument(3, "starts per course in the comparison", 1, 10_000)
    fresh: bool = False  # forget finished stages and begin again.


@dataclass(frozen=True)
class Stage:
    """One step of the demo.

    Attributes:
        name, purpose: for the person watching.
        arguments: of ``alpamayo-mono``.
        expected_s: wall seconds on two cores, from which the time that is left is estimated.
        folder: what it makes below the run folder; emptied before an unfinished stage is run again.
        resumes: its command goes on where a kill stopped it, so nothing of it is removed.
        may_fail: exit code 1 with metrics is a result (a kart that leaves the road), not an end of the demo.
        beside: stages that keep the clock and leave cores idle; it begins beside the first of them, on what they leave.
    """

    name: str
    purpose: str
    arguments: tuple[str, ...]
    expected_s: float
    folder: str = ""
    may_fail: bool = False
    resumes: bool = False
    beside: tuple[str, ...] = ()


# Seeds of the courses recorded for finetuning: apart from the base's (0 ...) and from the held-out 9001.
RECORD_SEED = 5000
# Long enough to see where a kart goes that has lost the road.
DRIVE_BEFORE_S = 15.0
# Of the drives over ROS 2: how long their nodes take to start and end, a lap of the city course, and the share of the
# cores that they leave.
STARTING_S, LAP_S, IDLE_SHARE = 13.0, 86.0, 0.6
# What the estimate trusts the expected seconds with before this machine has shown its own speed.
PRIOR_S = 60.0
_LOOK_S = 0.2  # between looks at what a stage says
HELD_OUT = ("city", "city-mirror", "random:9001")


def stages(config: DemoConfig) -> tuple[Stage, ...]:
    """The demo's stages in order."""
    out = config.out
    bag, dataset, training = out / "bag", out / "dataset", out / "finetune"
    courses = ",".join(f"random:{RECORD_SEED + index}" for index in range(config.courses))
    model = ("--model", str(TINY_BASE))
    adapter = ("--adapter", str(training / "adapter"))
    drive = ("drive", "simulator:=true", "course:=city", f"model:={TINY_BASE}", f"laps:={config.laps}")
    before_s, after_s = STARTING_S + DRIVE_BEFORE_S, STARTING_S + LAP_S * config.laps
    return (
        Stage("messages", "find or build the Autoware messages", ("messages",), 15.0),
        Stage(
            "record",
            f"an expert drives {config.courses} courses; ROS 2 records frames and poses",
            (
                "record",
                "simulator:=true",
                f"courses:={courses}",
                f"episode_s:={config.episode_s:g}",
                f"duration_s:={config.courses * config.episode_s:g}",
                f"time_scale:={config.time_scale:g}",
                # A slow machine may miss some frames; the recording report counts them.
                "seed:=1",
                "max_loss:=0.2",
                f"out:={bag}",
            ),
            8.0 + config.courses * config.episode_s / min(config.time_scale, 8.5),
            "bag",
        ),
        Stage(
            "build",
            "frames and poses become samples whose reasoning and path agree",
            ("build", "--bags", str(bag), "--out", str(dataset), "--stride", "2"),
            8.0,
            "dataset",
        ),
        Stage(
            "finetune",
            "LoRA on language model and action expert, one camera",
            (
                "finetune",
                *model,
                "--dataset",
                str(dataset),
                "--out",
                str(training),
                "--steps",
                str(config.steps),
                "--batch_size",
                "8",
                "--lora_rank",
                "16",
                "--lora_alpha",
                "32",
                "--learning_rate",
                "2e-3",
                "--horizon_s",
                "3",
                "--mirror",
                # Validation and checkpoints now and then: each costs as much as a dozen steps.
                "--validate_every",
                "250",
                "--checkpoint_every",
                "250",
            ),
            35.0 + 0.2 * config.steps,
            "finetune",
            resumes=True,
        ),
        Stage(
            "evaluate",
            "open loop, before and after",
            ("evaluate", *model, *adapter, "--dataset", str(dataset), "--out", str(out / "evaluate"), "--limit", "96"),
            12.0,
            "evaluate",
        ),
        Stage(
            "drive-before",
            "one camera, bare model, over ROS 2",
            (*drive, f"duration_s:={DRIVE_BEFORE_S:g}", f"out:={out / 'drive_before'}"),
            before_s,
            "drive_before",
            may_fail=True,
        ),
        Stage(
            "drive-after",
            "one camera, with the adapter, over ROS 2",
            (
                *drive,
                f"duration_s:={config.drive_timeout_s:g}",
                f"adapter:={training / 'adapter'}",
                f"out:={out / 'drive_after'}",
            ),
            after_s,
            "drive_after",
            may_fail=True,
        ),
        Stage(
            "compare",
            "before and after on held-out courses, in-process",
            (
                "compare",
                *model,
                *adapter,
                "--courses",
                *HELD_OUT,
                "--starts",
                str(config.starts),
                "--variants",
                "base-mono",
                "adapter-mono",
                "expert",
                "--out",
                str(out / "compare"),
            ),
            # What is left of it after the drives.
            max(10.0, 75.0 * config.starts - IDLE_SHARE * (before_s + after_s)),
            beside=("drive-before", "drive-after"),
        ),
        Stage("report", "one page", ("report", "--run", str(out), "--out", str(out / "report.html")), 6.0),
    )


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
