"""Kill builds and demos at random moments, and look at what they left.

    python benchmarks/kill_campaign.py [--builds 50] [--demos 20] [--seed 0] [--out FOLDER]

A build with --overwrite is killed (SIGKILL) anywhere in its run, every second time within the last milliseconds, where
the new dataset takes the place of the old one. After each kill every byte in the folder must be of the old dataset or
of the new one. Small demos are killed and called again until there were so many kills, and each once to its end: each
call must go on where the one before was, and leave no process running. Prints how often what was found, and the
minutes saved against beginning anew. Kills of the recorder: benchmarks/benchmark_recorder.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closed_loop.demo_folder import OWNER
from tests.helpers.paths import ROOT
from tests.helpers.synthetic_bag import COURSE, drive_course, write_bag

_COMMIT = re.compile(rb'"commit": "[^"]*",')
# A demo of a few minutes: every stage, little of each.
SMALL = ("--courses", "3", "--steps", "60", "--drive_timeout_s", "6", "--starts", "1")


def command(*words: str) -> list[str]:
    """The command line, by this Python."""
    return [sys.executable, "-m", "closed_loop.cli", *words]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """A process of the product that says nothing here."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(words: list[str]) -> float:
    """Run to the end; wall seconds (SystemExit: it failed)."""
    began_s = time.monotonic()
    if code := start(words).wait():
        raise SystemExit(f"{' '.join(words)}: exit code {code}")
    return time.monotonic() - began_s


def contents(folder: Path) -> str:
    """A hash of every name and byte in a dataset, but for the commit of the code, which may be edited meanwhile."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        content = path.read_bytes() if path.is_file() else b""
        digest.update(_COMMIT.sub(b"", content) if path.name == "manifest.json" else content)
    return digest.hexdigest()


def kill_builds(root: Path, kills: int, draw: random.Random) -> bool:
    """Kill builds that replace one dataset by another; whether each left one of the two."""
    bag = write_bag(root / "bag", drive_course(COURSE * 2))
    states, seconds = {}, 0.0
    for stride in (3, 2):
        words = command("build", "--bags", str(bag), "--out", str(root / f"stride{stride}"), "--stride", str(stride))
        seconds = finish(words)
        states[contents(root / f"stride{stride}")] = stride
    out = root / "dataset"
    shutil.copytree(root / "stride3", out)
    found: Counter[str] = Counter()
    for number in range(kills):
        before = states[contents(out)]
        other = 5 - before
        words = command("build", "--bags", str(bag), "--out", str(out), "--stride", str(other), "--overwrite")
        process = start(words)
        if number % 2:  # within the final step
            manifest = root / ".dataset.unfinished" / "new" / "manifest.json"
            while process.poll() is None and not manifest.exists():
                time.sleep(0.0005)
            time.sleep(draw.uniform(0.0, 0.15))
        else:
            time.sleep(draw.uniform(0.0, seconds))
        process.send_signal(signal.SIGKILL)
        ended = process.wait() == 0
        after = states.get(contents(out))
        what = {before: "old", other: "new"}.get(after, "broken") if after else "broken"  # type: ignore[dict-item]
        found[f"{what}{', had ended' if ended else ''}"] += 1
        if what == "broken":
            shutil.rmtree(out)
            shutil.copytree(root / "stride3", out)
    print(f"{kills} builds killed (one takes {seconds:.1f} s): " + ", ".join(f"{n} {w}" for w, n in found.items()))
    return not found["broken"]


def left_running(out: Path) -> list[int]:
    """The processes of a demo."""
    mark, found = f"{OWNER}={out}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_demos(root: Path, kills: int, draw: random.Random) -> bool:
    """Kill demos, one after the other, again and again; whether each came to its end and left nothing running."""
    whole_s = finish(command("demo", "--out", str(root / "whole"), *SMALL))
    every = json.loads((root / "whole/stages.json").read_text()).keys()
    spent_s, moments_s, survivors, demos, sound = 0.0, list[float](), 0, 0, True
    while len(moments_s) < kills:
        demos += 1
        out, ended = root / f"killed{demos}", False
        words = command("demo", "--out", str(out), *SMALL)
        while not ended and len(moments_s) < kills:
            # Early enough that something is left to be done by the calls to come.
            moment_s = draw.uniform(2.0, whole_s / 3.0)
            began_s = time.monotonic()
            process = start(words)
            time.sleep(moment_s)
            process.send_signal(signal.SIGKILL)
            ended = process.wait() == 0
            spent_s += time.monotonic() - began_s
            if not ended:
                moments_s.append(moment_s)
                survivors += bool(left_running(out))
                stages = out / "stages.json"
                done = list(json.loads(stages.read_text())) if stages.is_file() else []
                print(
                    f"kill {len(moments_s)}: after {moment_s:.0f} s of demo {demos}; finished: {', '.join(done)}",
                    flush=True,
                )
        spent_s += 0.0 if ended else finish(words)
        sound = sound and not left_running(out) and json.loads((out / "stages.json").read_text()).keys() == every
    saved_s = sum(moments_s) - (spent_s - demos * whole_s)
    print(
        f"{len(moments_s)} kills of {demos} demos, {whole_s / 60:.1f} min each when left alone: {spent_s / 60:.1f} min "
        f"in all calls; {saved_s / 60:.1f} of {sum(moments_s) / 60:.1f} min before the kills were not lost. After "
        f"{survivors} kills something ran on, until the next call. All came to their end and left nothing running: "
        f"{sound}"
    )
    return sound


def main() -> int:
    """Run both campaigns; returns 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=50)
    parser.add_argument("--demos", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="folder to work in; a temporary one by default")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        root = arguments.out or Path(place)
        root.mkdir(parents=True, exist_ok=True)
        whole = kill_builds(root.resolve(), arguments.builds, draw) if arguments.builds else True
        went_on = kill_demos(root.resolve(), arguments.demos, draw) if arguments.demos else True
    return 0 if whole and went_on else 1


if __name__ == "__main__":
    sys.exit(main())
