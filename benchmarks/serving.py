"""What the way to the policy costs, and what a driving node does when its policy server fails.

    python -m benchmarks.serving round-trip [--baseline CHECKOUT] [--model] [--rounds 5] [--plans 40]
    python -m benchmarks.serving faults [--out FOLDER]
    python -m benchmarks.serving openpi --python PYTHON    # of an environment with openpi-client and typing_extensions

round-trip: from handing a frame over to having its plan, in milliseconds, through the policy process that the node
starts: raw and JPEG, 640 x 384 and 1920 x 1080, with a policy that answers at once, so that the way itself shows, and
with --model with the tiny model. --baseline is a checkout from before the server (7b01d29), whose pipe is timed in
turns with it: a round of one, a round of the other. faults: real processes, the simulator and the node over ROS 2,
and a server that is killed, stopped, restarted, and comes back as another. Run from the repository's root, on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from finetune import TINY_BASE

SIZES = ((640, 384), (1920, 1080))
INSTANT, MODEL = "instant_policy:Instant", "finetune.alpamayo_policy:AlpamayoPolicy"
CIRCLE = "tests.helpers.constant_curvature:LeftCircle"

# Both checkouts load it from the working folder, as a team's own driver.
INSTANT_POLICY = """
import numpy as np
from finetune.policy import Plan
class Instant:
    def __init__(self, **_options): ...
    def plan(self, observation):
        return Plan(observation.stamp_ns, np.zeros((64, 3)), "Keep on.")
"""
# What is timed, in a process of its own: this checkout's client, or the baseline's.
TIMED = """
import json, os, sys, threading
import numpy as np
from finetune.policy import Observation
policy, options, coding, sizes, plans = json.loads(sys.argv[1])
answers, came = [], threading.Event()
def took(reply):
    answers.append(reply)
    came.set()
def failed(why):
    print(why, file=sys.stderr, flush=True)
    os._exit(1)
ready = threading.Event()
told = (lambda _: ready.set(), took, failed, failed, lambda _: None)
if coding == "pipe":
    from closed_loop.ros.policy_process import PolicyProcess, PolicySpec
    client = PolicyProcess(PolicySpec(policy, options), *told)
else:
    from closed_loop.serving.child import PolicyProcess
    from closed_loop.serving.client import Answers
    from closed_loop.serving.settings import PolicySpec
    client = PolicyProcess(PolicySpec(policy, options), Answers(*told), coding=coding)
    client.start()
ready.wait()
y, x = np.mgrid[0:1080, 0:1920]
scene = np.stack([x // 8, y // 5, (x + y) // 12], -1) + np.random.default_rng(0).integers(-12, 12, (1080, 1920, 3))
scene = np.clip(scene, 0, 255).astype(np.uint8)
history = np.stack([np.linspace(-4.5, 0, 16), np.zeros(16), np.zeros(16)], -1)
result = {}
for width, height in sizes:
    frame = np.ascontiguousarray(scene[:height, :width])[None]
    answers.clear()
    for number in range(plans + 5):
        came.clear()
        client.submit(Observation(number + 1, {"front": frame}, history, 3.0))
        came.wait()
    result[f"{width}x{height}"] = [(reply.round_trip_ms, reply.compute_ms) for reply in answers[5:]]
client.close()
print(json.dumps(result))
"""


def timed(checkout: Path, policy: str, coding: str, plans: int) -> dict[str, list[list[float]]]:
    options = {"model_folder": str(TINY_BASE)} if policy == MODEL else {}
    words = [sys.executable, "-c", TIMED, json.dumps([policy, options, coding, SIZES, plans])]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "instant_policy.py").write_text(INSTANT_POLICY)
        said = subprocess.run(words, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(said.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def round_trip(options: argparse.Namespace) -> None:
    ways = [("raw", Path.cwd()), ("jpeg", Path.cwd())]
    ways += [("pipe", Path(options.baseline).resolve())] if options.baseline else []
    for policy in [INSTANT, *([MODEL] if options.model else [])]:
        found: dict[tuple[str, str], list[list[float]]] = {}
        for _ in range(options.rounds):
            for coding, checkout in ways:
                for size, values in timed(checkout, policy, coding, options.plans).items():
                    found.setdefault((size, coding), []).extend(values)
        print(
            f"{policy}: round trip, ms, p50 and p95 of {options.rounds} x {options.plans} (beside the policy's own p50)"
        )
        for (size, coding), values in sorted(found.items()):
            whole, own = np.array(values).T
            p50, p95 = np.percentile(whole, (50, 95))
            rest = np.percentile(whole - own, (50, 95))
            print(
                f"  {size:>9} {coding:<4}  {p50:7.2f} {p95:7.2f}   policy {np.median(own):7.2f}"
                f"   way {rest[0]:6.2f} {rest[1]:6.2f}"
            )


class Node:
    """A process whose lines are kept with the steady time at which they came."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-u", "-m", "closed_loop.cli", *words]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.lines: list[tuple[float, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append((time.monotonic(), line.rstrip()))

    def after(self, from_s: float, pattern: str, within_s: float = 60.0) -> tuple[float, str]:
        """The first line from then on that matches: seconds after ``from_s``, and the line."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            for at_s, line in [*self.lines]:
                if at_s >= from_s and re.search(pattern, line):
                    return at_s - from_s, re.sub(r"^\[.*?\] \[.*?\] \[.*?\]: ", "", line)
            time.sleep(0.01)
        return float("nan"), f"nothing like {pattern!r} within {within_s:g} s"

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()


@contextmanager
def server(port: int, *words: str, policy: str = CIRCLE, protocol: str = "") -> Iterator[Node]:
    node = Node("serve", "--port", str(port), "--policy", policy, *words)
    if protocol:  # of a version that is not written yet
        node.end()
        code = (
            "import sys; from closed_loop.serving import metadata; metadata.PROTOCOL = sys.argv[1];"
            "from closed_loop.serving.command import main; main(sys.argv[2:])"
        )
        words = (protocol, "--port", str(port), "--policy", policy)
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        node.process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment, start_new_session=True)
        time.sleep(3.0)
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.end()


def faults(options: argparse.Namespace) -> None:
    out = Path(options.out or tempfile.mkdtemp())
    port = options.port
    said: list[tuple[str, float, str]] = []

    def see(what: str, drive: Node, from_s: float, *patterns: str) -> None:
        for pattern in patterns:
            said.append((what, *drive.after(from_s, pattern)))
            print(f"{what:<28} {said[-1][1]:7.2f} s  {said[-1][2]}", flush=True)

    common = ["drive", f"policy_server:=127.0.0.1:{port}", "off_road_s:=0", "laps:=0"]
    with server(port, protocol="2.0"):
        began_s = time.monotonic()
        drive = Node(*common, "simulator:=true", f"out:={out / 'mismatch'}")
        see("protocol 2.0 at the start", drive, began_s, r"speaks protocol 2\.0")
        print(f"{'':<28} exit code {drive.process.wait(60)}", flush=True)
    began_s = time.monotonic()
    drive = Node(*common, "simulator:=true", f"out:={out / 'faults'}")
    see("no server at the start", drive, began_s, "nobody answers")
    with server(port) as first:
        see("it comes", drive, time.monotonic(), ": driving")
        time.sleep(6.0)
        at_s = time.monotonic()
        first.end()
        see("kill -9", drive, at_s, "policy error", ": braking")
        time.sleep(3.0)
    with server(port) as second:
        see("restart", drive, time.monotonic(), "policy ready", ": driving")
        time.sleep(5.0)
        at_s = time.monotonic()
        second.end(signal.SIGSTOP)
        see("SIGSTOP", drive, at_s, ": braking", "policy error")
        at_s = time.monotonic()
        second.end(signal.SIGCONT)
        see("SIGCONT", drive, at_s, "policy ready", ": driving")
        time.sleep(5.0)
        at_s = time.monotonic()
        second.end(signal.SIGTERM)
        see("SIGTERM", drive, at_s, "policy error", ": braking")
    with server(port, "--flow-steps", "9"):
        see("comes back as another", drive, time.monotonic(), "came back as another", "drive ended|error:")
        print(f"{'':<28} exit code {drive.process.wait(60)}", flush=True)
    (out / "faults.txt").write_text("\n".join(line for _, line in drive.lines) + "\n")
    print(f"the node's lines: {out / 'faults.txt'}")


OPENPI = """
import sys, time, numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="of-the-benchmark")
print({key: value for key, value in policy.get_server_metadata().items() if key in ("protocol", "version", "cameras")})
history = np.stack([np.linspace(-7.5, 0, 16), np.zeros(16), np.zeros(16)], 1)
frames, took = np.zeros((1, 384, 640, 3), np.uint8), []
for stamp_ns in range(1, 41):
    began = time.perf_counter()
    plan = policy.infer({"stamp_ns": stamp_ns, "frames": {"front": frames}, "history": history, "speed_mps": 5.0})
    took.append((time.perf_counter() - began) * 1e3)
print(plan["poses"].shape, repr(plan["reasoning"]), {name: round(ms, 2) for name, ms in plan["server_timing"].items()})
print("round trip p50, p95, ms:", np.percentile(took[5:], (50, 95)).round(2))
try:
    policy.infer({"stamp_ns": 1, "frames": {}, "history": history})
except RuntimeError as error:
    print(error)
"""


def openpi(options: argparse.Namespace) -> None:
    os.environ["ALPAMAYO_MONO_TOKEN"] = "of-the-benchmark"
    with server(options.port, policy=MODEL) as node:
        node.after(0.0, "policy ready")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([options.python, "-c", OPENPI, str(options.port)], env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "round-trip": (round_trip, {"--baseline": "", "--rounds": 5, "--plans": 40, "--model": False}),
        "faults": (faults, {"--out": "", "--port": 8743}),
        "openpi": (openpi, {"--python": sys.executable, "--port": 8744}),
    }
    for name, (function, words) in known.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        for word, default in words.items():
            if default is False:
                command.add_argument(word, action="store_true")
            else:
                command.add_argument(word, type=type(default), default=default)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
