"""Every way a drive can end, over real processes: how soon the kart is braked, and what is left behind.

    python benchmarks/endings_campaign.py [--only WORD ...] [--out FOLDER] [--json FILE]

The embedded simulator runs alone, as AWSIM does; a driver with a stand-in for the model goes round in a circle at 2.5
m/s; then one thing ends or is broken. A node of this script listens to what everybody says. Per kind of ending: time to
the first braking command and to standstill on the steady clock, metres driven until then, the exit code, whether the
metrics were written, and how many processes of the driver are left 15 s later (a killed simulator's publishers stay in
the graph of Fast DDS for 20 s; a driver that waits for it is given 35). Kinds with ``ros2`` need a sourced ROS
with ``ros2 launch``, and this package as one of its own; a full disk needs root, who may mount one of 400 kB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collector.ros.message_packages import message_class
from collector.ros.session import is_running
from collector.ros.topics import CLOCK, CONTROL_CMD, ODOMETRY, STANDING_MPS, qos_profile
from tests.helpers.paths import ROOT

BRAKING_MPS2 = -1.5
WARM_UP_S = 4.0
LEFT_AFTER_S = 15.0
MARK = "ENDINGS_CAMPAIGN"
POLICY = "policy:=tests.helpers.constant_curvature:LeftCircle"


@dataclass
class Result:
    """What was seen of one ending."""

    kind: str
    brake_s: float | None = None
    standstill_s: float | None = None
    metres: float | None = None
    code: int | None = None
    has_metrics: bool = False
    left: list[str] = field(default_factory=list)
    moves: bool = False  # the kart, at the end
    said: str = ""  # the driver's last line


class Ear:
    """A node that hears commands and poses; ``speak`` makes it another controller, or another clock."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        rclpy.init()
        self.node = rclpy.create_node("teleop")
        self.commands: list[tuple[float, float]] = []
        self.poses: list[tuple[float, float, float, float]] = []
        for topic, callback in ((CONTROL_CMD, self._on_command), (ODOMETRY, self._on_odometry)):
            self.node.create_subscription(message_class(topic.type), topic.name, callback, qos_profile(topic, 50))
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def _on_command(self, message: Any) -> None:
        self.commands.append((time.monotonic(), message.longitudinal.acceleration))

    def _on_odometry(self, message: Any) -> None:
        place, speed = message.pose.pose.position, message.twist.twist.linear.x
        self.poses.append((time.monotonic(), place.x, place.y, speed))

    def listen(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not enough():
            self._executor.spin_once(timeout_sec=0.01)

    @contextmanager
    def speaking(self, topic: Any, hz: float) -> Iterator[None]:
        """Publish on a topic until the body is done."""
        publisher = self.node.create_publisher(message_class(topic.type), topic.name, qos_profile(topic))
        message = message_class(topic.type)()
        if topic is CONTROL_CMD:
            message.longitudinal.acceleration = 1.0
        timer = self.node.create_timer(1.0 / hz, lambda: publisher.publish(message))
        try:
            yield
        finally:
            self.node.destroy_timer(timer)
            self.node.destroy_publisher(publisher)


class Run:
    """One drive that is going on: simulator, driver, and what the ear has heard."""

    def __init__(self, ear: Ear, folder: Path, words: list[str], command: list[str]) -> None:
        self.ear, self.folder, self.out = ear, folder, folder / "drive"
        self.mark = str(random.SystemRandom().getrandbits(48))
        self.simulator = self._start("simulator", [*node("closed_loop.simulator.node"), *ros(SIMULATOR)], "")
        self.driver = self._start("driver", [*command, *words, f"out:={self.out}"], self.mark)
        ear.listen(30.0, lambda: ": driving" in self.said or self.driver.poll() is not None)
        ear.listen(WARM_UP_S, lambda: self.driver.poll() is not None)

    def _start(self, name: str, words: list[str], mark: str) -> subprocess.Popen[bytes]:
        if "--ros-args" in words:  # a node is given what follows as parameters
            at = words.index("--ros-args")
            words = [*words[:at], *ros([word for word in words[at:] if ":=" in word])]
        with (self.folder / f"{name}.log").open("wb") as log:
            environment = {**os.environ, MARK: mark}
            return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self.folder)

    @property
    def said(self) -> str:
        return (self.folder / "driver.log").read_text(errors="replace")

    def processes(self, word: str = "") -> list[int]:
        """The driver's processes whose command line has a word in it."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes().split(b"\0")
                if ours and word.encode() in (place / "cmdline").read_bytes() and is_running(int(place.name)):
                    found.append(int(place.name))
        return found

    def signal(self, word: str, number: int) -> None:
        """Send a signal to the driver's process of that name, or to what was started."""
        for process in self.processes(word) if word else [self.driver.pid]:
            os.kill(process, number)

    def close(self) -> None:
        for process in (*self.processes(), self.simulator.pid):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        for child in (self.driver, self.simulator):
            child.wait()


SIMULATOR = ["expert:=false", "image_width:=320", "image_height:=180"]


def node(module: str) -> list[str]:
    return [sys.executable, "-u", "-m", module, "--ros-args"]


def ros(words: list[str]) -> list[str]:
    return ["--ros-args", *(part for word in words for part in ("-p", word))]


DRIVER = node("closed_loop.ros.drive_node")
VERB = [sys.executable, "-m", "closed_loop.cli", "drive"]
LAUNCH = ["ros2", "launch", "closed_loop", "drive.launch.py"]
Break = Callable[[Run], None]


@dataclass(frozen=True)
class Kind:
    """A way to end: how the driver is started, what then happens, and which exit codes are right (none: it stays)."""

    start: list[str]
    breaks: Break
    codes: tuple[int, ...]
    words: tuple[str, ...] = ()
    disk_kb: int = 0
    is_of_kart: bool = True  # whether there is a kart afterwards that could still move


def by(number: int, word: str = "") -> Break:
    return lambda run: run.signal(word, number)


def stop_and_go_on(run: Run) -> None:
    run.signal("drive_node", signal.SIGSTOP)
    run.ear.listen(5.0)
    run.signal("drive_node", signal.SIGCONT)
    run.ear.listen(3.0)
    run.signal("drive_node", signal.SIGINT)


def guard_and_node(run: Run) -> None:
    run.signal("ros.guard", signal.SIGKILL)
    run.ear.listen(3.0)
    run.ear.commands.clear()
    run.began_s = time.monotonic()  # type: ignore[attr-defined]
    run.signal("drive_node", signal.SIGKILL)


def speak(topic: Any, hz: float, seconds: float) -> Break:
    def breaks(run: Run) -> None:
        with run.ear.speaking(topic, hz):
            run.ear.listen(seconds)
        run.ear.listen(1.5)
        run.signal("", signal.SIGINT)

    return breaks


def simulator_dies(run: Run) -> None:
    run.simulator.kill()


def wait(run: Run) -> None:
    run.ear.listen(40.0, lambda: run.driver.poll() is not None)


INT, TERM, HUP, KILL, STOP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSTOP
KINDS = {
    "node: SIGINT": Kind(DRIVER, by(INT), (0,)),
    "node: SIGTERM": Kind(DRIVER, by(TERM), (0,)),
    "node: SIGHUP": Kind(DRIVER, by(HUP), (1,)),
    "node: SIGKILL": Kind(DRIVER, by(KILL), (-9,)),
    "node: SIGSEGV": Kind(DRIVER, by(signal.SIGSEGV), (-11,)),
    "node: SIGSTOP, never continued": Kind(DRIVER, by(STOP), ()),
    "node: SIGSTOP, SIGCONT, SIGINT": Kind(DRIVER, stop_and_go_on, (0,)),
    "guard killed, then the node": Kind(DRIVER, guard_and_node, (-9,)),
    "policy: SIGKILL": Kind(DRIVER, by(KILL, "serving.worker"), (1,)),
    "simulator: SIGKILL": Kind(DRIVER, simulator_dies, (1,), is_of_kart=False),
    "another controller at 10 Hz for 4 s": Kind(DRIVER, speak(CONTROL_CMD, 10.0, 4.0), (0,)),
    "another clock at 20 Hz for 4 s": Kind(DRIVER, speak(CLOCK, 20.0, 4.0), (0,)),
    "disk full": Kind(DRIVER, wait, (2,), disk_kb=400),
    "seconds driven": Kind(DRIVER, wait, (0,), ("duration_s:=8.0",)),
    "laps:=0, off the road": Kind(VERB, wait, (1,), ("laps:=0", "off_road_s:=1.0")),
    "alpamayo-mono drive: SIGINT": Kind(VERB, by(INT), (0,)),
    "alpamayo-mono drive: SIGHUP": Kind(VERB, by(HUP), (0,)),
    "alpamayo-mono drive: SIGKILL": Kind(VERB, by(KILL), (-9,)),
    "ros2 launch: SIGINT": Kind(LAUNCH, by(INT), (0,)),
    "ros2 launch: SIGTERM": Kind(LAUNCH, by(TERM), (1, -15)),
    "ros2 launch: SIGHUP": Kind(LAUNCH, by(HUP), (1, -1)),
    "ros2 launch: SIGKILL": Kind(LAUNCH, by(KILL), (-9,)),
    "ros2 launch: the node is killed": Kind(LAUNCH, by(KILL, "drive_node"), (1,)),
    "ros2 launch: the policy is killed": Kind(LAUNCH, by(KILL, "serving.worker"), (1,)),
    "ros2 launch: seconds driven": Kind(LAUNCH, wait, (0,), ("duration_s:=8.0",)),
}


@contextmanager
def folder_of(kind: Kind, parent: Path) -> Iterator[Path]:
    """A new folder, on a small disk of its own where one is asked for."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    if not kind.disk_kb:
        yield folder
        return
    disk = folder / "drive"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kind.disk_kb}k", "tmpfs", str(disk)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def judge(name: str, kind: Kind, ear: Ear, parent: Path) -> Result:
    """Start, break, and look."""
    ear.commands.clear()
    ear.poses.clear()
    result = Result(name)
    words = [POLICY, *(() if "off_road_s" in str(kind.words) else ("off_road_s:=0.0",)), *kind.words]
    with folder_of(kind, parent) as folder:
        run = Run(ear, folder, words, kind.start)
        try:
            ear.commands.clear()
            began_s = time.monotonic()
            kind.breaks(run)
            began_s = getattr(run, "began_s", began_s)
            patience_s = LEFT_AFTER_S + (0.0 if kind.is_of_kart else 20.0)
            ear.listen(patience_s, lambda: run.driver.poll() is not None and not run.processes())
            ear.listen(2.0)
            result.code, result.left = run.driver.poll(), [*map(str, run.processes())]
            result.has_metrics = (run.out / "metrics.json").is_file()
            if ": driving" not in run.said:
                result.said = "it never drove; " + run.said[-200:]
            elif kind.codes:
                result.said = next(reversed([line for line in run.said.splitlines() if "planning" not in line]), "")
            measure(result, ear, began_s if kind.breaks is not wait else 0.0, kind.is_of_kart)
        finally:
            run.close()
            ear.listen(1.0)
    return result


def measure(result: Result, ear: Ear, began_s: float, is_of_kart: bool) -> None:
    """Braking, standstill and way from the moment of the break on; from the first braking where it came by itself."""
    result.moves = is_of_kart and bool(ear.poses) and abs(ear.poses[-1][3]) > STANDING_MPS
    brakes = [at_s for at_s, accel in ear.commands if accel < BRAKING_MPS2 and at_s > began_s]
    if not brakes:
        return
    result.brake_s = round(brakes[0] - began_s, 3) if began_s else 0.0
    began_s = began_s or brakes[0]
    stand_s = next((at_s for at_s, _, _, speed in ear.poses if at_s > brakes[0] and abs(speed) < STANDING_MPS), None)
    if stand_s is not None:
        result.standstill_s = round(stand_s - began_s, 2)
        way = [(x, y) for at_s, x, y, _ in ear.poses if began_s <= at_s <= stand_s]
        result.metres = round(sum(math.dist(*pair) for pair in zip(way, way[1:])), 2)  # noqa: RUF007, B905


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="kinds with one of these words in their name")
    parser.add_argument("--out", type=Path, default=None, help="folder of the logs; a temporary one by default")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(20, 101)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(ROOT)]))
    parent = arguments.out or Path(tempfile.mkdtemp(prefix="endings-"))
    parent.mkdir(parents=True, exist_ok=True)
    ear, results = Ear(), []
    print("| ending | braked after, s | stands after, s | metres | exit code | metrics | processes left | moves |")
    print("|---|---|---|---|---|---|---|---|")
    bad = 0
    for name, kind in KINDS.items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        if (kind.start is LAUNCH and shutil.which("ros2") is None) or (kind.disk_kb and os.geteuid()):
            print(f"| {name} | not run: see --help | | | | | | |")
            continue
        result = judge(name, kind, ear, parent)
        wrong = (
            result.brake_s is None
            or result.said.startswith("it never drove")
            or result.moves
            or bool(kind.codes and result.left)
            or (kind.codes and result.code not in kind.codes)
        )
        bad += bool(wrong)
        results.append(asdict(result))
        print(
            f"| {name} | {result.brake_s} | {result.standstill_s} | {result.metres} | {result.code} | "
            f"{'yes' if result.has_metrics else 'no'} | {len(result.left)} | {'YES' if result.moves else 'no'} |"
            + (f" WRONG: {result.said}" if wrong else ""),
            flush=True,
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
