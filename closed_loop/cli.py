"""The one command ``alpamayo-mono``: a verb per job, each imported only when it is called for."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from collector.common.cpu import share_cores
from collector.common.errors import EXIT_USAGE, MonoError, pip_install
from collector.common.files import sentence_of
from collector.common.start import EXIT_INTERRUPTED, leave_working_folder

_OWN_PACKAGES = ("collector", "finetune", "closed_loop")


@dataclass(frozen=True)
class Verb:
    """One job of the command line."""

    name: str
    target: str  # `"module"` or `"module:function"`; the function, else `main`, takes the remaining words
    help: str
    extra: str = ""  # the extra of this package that carries what the job imports, empty for none


STAGES: dict[str, tuple[Verb, ...]] = {
    "see it work": (Verb("demo", "closed_loop.demo", "the whole loop here, a table and a page at its end", "model"),),
    "1 collect (ROS 2)": (
        Verb("messages", "collector.ros.message_packages", "where the ROS messages come from; build missing ones"),
        Verb("simulate", "closed_loop.launcher:main_simulate", "run the embedded simulator, in place of AWSIM"),
        Verb("doctor", "collector.doctor.command", "before a run: what is missing, and the cure"),
        Verb("record", "closed_loop.launcher:main_record", "record front frames and poses to a bag"),
        Verb("recover", "collector.bags.recover", "finish a bag whose recording was killed"),
    ),
    "2 curate": (
        Verb("calibrate", "collector.calibration.command", "the camera's time offset and pitch, from a bag", "report"),
        Verb("identify", "collector.vehicle.command", "the kart's steering and wheels, from a bag, as YAML", "report"),
        Verb("build", "collector.dataset.builder", "cut bags into samples whose reasoning and path agree"),
        Verb(
            "build-physical-ai",
            "collector.dataset.physical_ai",
            "the same from curves of NVIDIA's PhysicalAI-AV",
            "physical-ai",
        ),
        Verb("pairs", "closed_loop.pairs.command", "one frame, several futures, each with its text: in the simulator"),
        Verb(
            "dagger",
            "closed_loop.dagger.command",
            "where a finetuned model comes to, and what the expert does from there",
            "model",
        ),
        Verb("view", "collector.dataset.view", "one HTML page of a dataset, the paths drawn on the road", "report"),
    ),
    "3 finetune": (
        Verb("finetune", "finetune.lora_finetune", "train a LoRA on both halves of the model", "model"),
        Verb("evaluate", "finetune.evaluation.command", "open-loop errors and consistency of a model", "model"),
        Verb(
            "counterfactual",
            "finetune.studies.counterfactual",
            "force the opposite reasoning: does the path follow?",
            "model",
        ),
        Verb("overfit", "finetune.studies.overfit", "can it learn a few samples by heart? pass or fail", "model"),
        Verb("check-driving", "finetune.studies.parity", "does driving compute what training did?", "model"),
        Verb(
            "action-range",
            "finetune.studies.action_range_command",
            "how far curvature reaches in the model's units",
            "model",
        ),
        Verb("sweep", "finetune.studies.sweep", "how many samples does it take? one recipe, growing sizes", "model"),
        Verb("merge", "finetune.adapters.merge", "base and adapter as one full checkpoint for other tools", "model"),
    ),
    "4 drive and measure": (
        Verb("drive", "closed_loop.launcher:main_drive", "drive closed-loop over ROS 2 with one camera"),
        Verb(
            "serve",
            "closed_loop.serving.command",
            "the model as a server, for a node on this or another machine",
            "model",
        ),
        Verb("measure", "closed_loop.comparison.measure", "lateral deviation of a drive, curve by curve"),
        Verb("compare", "closed_loop.comparison.compare", "before and after on held-out courses, no ROS", "model"),
        Verb("report", "closed_loop.report.page", "one HTML page from the runs", "report"),
    ),
}
VERBS = {verb.name: verb for verbs in STAGES.values() for verb in verbs}
# What `ros2 run` starts comes through here too; its words are ROS's (--ros-args ...).
NODES = {
    "record_node": Verb("record_node", "collector.recording.node", "the recording node"),
    "drive_node": Verb("drive_node", "closed_loop.ros.drive_node", "the driving node"),
    "simulator": Verb("simulator", "closed_loop.simulator.node", "the embedded simulator's node"),
}


def help_text() -> str:
    """What ``alpamayo-mono --help`` prints."""
    width = max(map(len, VERBS))
    lines = [
        "usage: alpamayo-mono VERB ...        (alpamayo-mono VERB --help explains a verb)",
        "",
        "Adapts Alpamayo-R1, a driving model trained on four cameras, to a kart with one front camera:",
        "record drives, build samples whose reasoning and path agree, finetune, drive, measure on curves.",
    ]
    for stage, verbs in STAGES.items():
        lines += ["", f"{stage}:", *(f"  {verb.name:<{width}}  {verb.help}" for verb in verbs)]
    lines += [
        "",
        "A first round without AWSIM, GPU or weights:",
        "  alpamayo-mono record simulator:=true out:=runs/bag duration_s:=120 episode_s:=20",
        "  alpamayo-mono build --help      # then finetune, compare, report; or all of it: alpamayo-mono demo",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; its exit code, 2 with one sentence on stderr for what the user can mend, or 130 after Ctrl-C."""
    leave_working_folder()
    words = list(sys.argv[1:] if argv is None else argv)
    share_cores()
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(help_text(), flush=True)
            return 0 if words else EXIT_USAGE
        if words[0] == "--version":
            try:
                print(importlib.metadata.version("alpamayo_mono"))
            except importlib.metadata.PackageNotFoundError:
                print("alpamayo_mono (not installed: running from its folder)")
            return 0
        return _run(words[0], words[1:])
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); what Python would still flush at its end has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except (MonoError, OSError) as error:
        print(f"{' '.join(['alpamayo-mono', *words[:1]])}: {sentence_of(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends at once
        # Where it came while a text was run, as the making of a dataclass does, Python would end itself by the signal.
        exec("")  # noqa: S102 - which makes it forget that
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(name: str, words: list[str]) -> int:
    verb = VERBS.get(name) or NODES.get(name)
    if verb is None:
        close = difflib.get_close_matches(name, VERBS, n=1)
        found = f"there is no verb {name!r}"
        raise MonoError(found, f"{close[0]!r}, perhaps" if close else "", "see alpamayo-mono --help")
    module, _, function = verb.target.partition(":")
    try:
        code = getattr(importlib.import_module(module), function or "main")(words)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if not missing or missing in _OWN_PACKAGES:
            raise
        is_there = not isinstance(error, ModuleNotFoundError)
        found = f"the Python module {missing!r} is {f'another than expected ({error})' if is_there else 'missing'}"
        raise MonoError(
            found, "" if not verb.extra else f"the extra [{verb.extra}]", pip_install(verb.extra, missing)
        ) from error
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
