"""What the demo is made of: its settings, and each stage as the command a person would type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collector.common.arguments import Arguments, argument
from collector.ros.parameters import LONGEST_S
from finetune import TINY_BASE, TINY_STEERED


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
HELD_OUT = ("city", "city-mirror", "random:9001")
STEER = ("keep left", "slower", "keep right", "faster")


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
        Stage(
            "steer",
            "words to a driving kart, with the adapter that this program brings",
            (
                "compare",
                *model,
                "--adapter",
                str(TINY_STEERED),
                "--courses",
                HELD_OUT[-1],
                "--starts",
                "1",
                "--variants",
                "adapter-mono",
                "--instructions",
                *STEER,
                "--out",
                str(out / "steer"),
            ),
            50.0,
            "steer",
        ),
        Stage("report", "one page", ("report", "--run", str(out), "--out", str(out / "report.html")), 6.0),
    )
