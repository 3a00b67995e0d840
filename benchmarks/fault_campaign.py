"""Break a driver's inputs one by one, over real processes, at 5 m/s, 5 m before a curve, and see what it does.

    python benchmarks/fault_campaign.py [--rules free|e2e] [--kinds WORD ...] [--out FOLDER]

For each kind of tests/helpers/driver_faults.py: the embedded simulator and the drive node as processes, the policy as
the process that the node starts, and this one between simulator and driver: it hears what the simulator says under
other names, breaks it from the curve on for four seconds, and passes it on. The policy knows the road and reads the
place off a mark in the picture.

Measured by the simulator's truth and a steady clock: first braking command, standstill, metres
until the command, how far the kart's outline went over the edge, whether it drove on when the fault was over, and its
speed when the driver had ended. Returns 1 where a kind that has to brake took longer than 0.7 s, left the road, or left
a kart moving. ``ROS_DOMAIN_ID`` is taken where set.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.control.safety_monitor import STOPPING
from closed_loop.course.design import course_named
from collector.ros import topics
from collector.ros.conversions import fill_image, odometry_of, rgb_of, set_pose, set_stamp, stamp_ns_of
from collector.ros.message_packages import message_class
from tests.helpers.driver_faults import FAULTS, Fault, Frame, Injected, Odometry
from tests.helpers.fault_trials import BEFORE_M, COURSE, RUN_UP_M, STANDING_MPS, Trial, curve_m
from tests.helpers.paths import ROOT
from tests.helpers.road_driver import mark, number_of

FAULT_S, AFTER_S, END_S, START_S = 4.0, 5.0, 4.0, 60.0
WITHIN_S, BRAKE_MPS2 = 0.7, -1.9
TRUE = "/true"
NOTHING = Fault("nothing", {}, "none")
STREAMS = {
    topics.CAMERA_IMAGE: "frame",
    topics.ODOMETRY: "odometry",
    topics.VELOCITY_STATUS: "wheels",
    topics.STEERING_STATUS: "steering",
    topics.CLOCK: "clock",
}


@dataclass
class Truth:
    """One thing that the simulator said of the kart."""

    steady_s: float
    pose: np.ndarray
    speed_mps: float


class Between:
    """Hears the simulator, breaks what it says, and passes it on to the driver."""

    def __init__(self, node: Any, fault: Fault, switch: Path) -> None:
        self.course = course_named(COURSE)
        self.curve_m = curve_m(self.course)
        self.injected, self.switch = Injected(fault), switch
        self.began_s: float | None = None
        self.truth: list[Truth] = []
        self.commands: list[tuple[float, float]] = []
        self.last: dict[str, Any] = {}
        self._sim_s: tuple[float, float] | None = None
        self.publishers = {}
        for topic in STREAMS:
            kind = message_class(topic.type)
            self.publishers[topic] = node.create_publisher(kind, topic.name, topics.qos_profile(topic))
            node.create_subscription(
                kind, TRUE + topic.name, lambda m, topic=topic: self._heard(topic, m), topics.qos_profile(topic, 10)
            )
        command = message_class(topics.CONTROL_CMD.type)
        profile = topics.qos_profile(topics.CONTROL_CMD, 10)
        node.create_subscription(command, topics.CONTROL_CMD.name, self._commanded, profile)

    @property
    def since_s(self) -> float | None:
        """Steady seconds since the fault began, None before and after it."""
        if self.began_s is None or time.monotonic() - self.began_s > FAULT_S:
            return None
        return time.monotonic() - self.began_s

    def _commanded(self, message: Any) -> None:
        self.commands.append((time.monotonic(), float(message.longitudinal.acceleration)))

    def _heard(self, topic: topics.Topic, message: Any) -> None:
        if topic is topics.ODOMETRY:
            _, pose, speed_mps = odometry_of(message)
            self.truth.append(Truth(time.monotonic(), np.array(pose), speed_mps))
            station_m = float(self.course.project(pose[:2]).s_m)
            if self.began_s is None and self.curve_m - BEFORE_M < station_m < self.curve_m:
                self.began_s = time.monotonic()
                self.switch.touch()
        if self.switch.exists() and self.began_s is not None and self.since_s is None:
            self.switch.unlink()
        for changed in self.injected.passed(STREAMS[topic], self.since_s, self._plain(topic, message)):
            late_s = getattr(changed, "late_s", 0.0)
            if late_s:
                threading.Timer(late_s, self._pass_on, (topic, changed)).start()
            else:
                self._pass_on(topic, changed)

    def _plain(self, topic: topics.Topic, message: Any) -> Frame | Odometry:
        if topic is topics.CAMERA_IMAGE:
            image = rgb_of(message)
            if self.truth:
                mark(image, number_of(self.truth[-1].pose, self.course))
            return Frame(stamp_ns_of(message.header.stamp), image)
        if topic is topics.CLOCK:
            return Odometry(stamp_ns_of(message.clock), 0.0, 0.0, 0.0, 0.0)
        if topic is topics.VELOCITY_STATUS:
            speed_mps, rate = message.longitudinal_velocity, message.heading_rate
            return Odometry(stamp_ns_of(message.header.stamp), 0.0, 0.0, 0.0, speed_mps, rate)
        if topic is topics.STEERING_STATUS:
            return Odometry(stamp_ns_of(message.stamp), 0.0, 0.0, 0.0, message.steering_tire_angle)
        stamp_ns, pose, speed_mps = odometry_of(message)
        return Odometry(stamp_ns, *pose, speed_mps, message.twist.twist.angular.z)

    def _pass_on(self, topic: topics.Topic, changed: Frame | Odometry) -> None:
        message = message_class(topic.type)()
        if isinstance(changed, Frame):
            fill_image(message, changed.image)
            message.encoding = changed.encoding
            message.header.frame_id = topics.CAMERA_FRAME
            set_stamp(message.header.stamp, max(changed.stamp_ns, 0))
        elif topic is topics.CLOCK:
            set_stamp(message.clock, changed.stamp_ns)
        elif topic is topics.VELOCITY_STATUS:
            message.longitudinal_velocity, message.heading_rate = float(changed.speed), float(changed.rate)
            set_stamp(message.header.stamp, max(changed.stamp_ns, 0))
        elif topic is topics.STEERING_STATUS:
            message.steering_tire_angle = float(changed.speed)
            set_stamp(message.stamp, max(changed.stamp_ns, 0))
        else:
            set_pose(message.pose.pose, (changed.x, changed.y, changed.yaw))
            message.twist.twist.linear.x, message.twist.twist.angular.z = float(changed.speed), float(changed.rate)
            message.header.frame_id, message.child_frame_id = topics.MAP_FRAME, topics.BASE_FRAME
            set_stamp(message.header.stamp, max(changed.stamp_ns, 0))
        self.publishers[topic].publish(message)

    def trial(self, ended_s: float) -> Trial:
        """What was seen; ``ended_s`` is when the driver was told to end."""
        trial, began_s = Trial(self.injected.fault.name), self.began_s
        if began_s is None:
            return replace(trial, reason="the kart never came to the curve")
        over_s = began_s + FAULT_S
        road = OffTrackMonitor(self.course)
        braked = next((t for t, accel in self.commands if t >= began_s and accel < BRAKE_MPS2 and t < over_s), None)
        trial.braked_s = None if braked is None else braked - began_s
        last = None
        for number, each in enumerate(self.truth):
            road.update(number * 20_000_000, each.pose)
            if each.steady_s < began_s:
                trial.speed_mps = each.speed_mps
                continue
            if last is not None and each.steady_s < (braked or over_s):
                trial.blind_m += float(math.dist(each.pose[:2], last[:2]))
            last = each.pose
            if each.steady_s < over_s:
                trial.beyond_m, trial.end_mps = max(trial.beyond_m, road.beyond_m), each.speed_mps
                if trial.standing_s is None and each.speed_mps < STANDING_MPS:
                    trial.standing_s = each.steady_s - began_s
            elif each.steady_s < ended_s:
                trial.beyond_after_m = max(trial.beyond_after_m, road.beyond_m)
                trial.recovered = each.speed_mps > 0.5
        return trial


class Processes:
    """Simulator and driver; ended in the order of their start, whatever happens."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, remaps: list[str], **parameters: Any) -> Path:
        """Start a node; returns the file that it prints to."""
        words = [sys.executable, "-u", "-m", module, "--ros-args"]
        for name, value in parameters.items():
            words += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        for remap in remaps:
            words += ["-r", remap]
        log = self.folder / f"{module.rpartition('.')[2]}.log"
        with log.open("wb") as file:
            self.started.append(
                subprocess.Popen(words, cwd=ROOT, env=self.environment, stdout=file, stderr=subprocess.STDOUT)
            )
        return log

    def close(self) -> None:
        """End what is left."""
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(8.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def starve(pid: int, until_s: float) -> None:
    """Give a process a quarter of the time."""
    while time.monotonic() < until_s:
        for number, pause_s in ((signal.SIGSTOP, 0.3), (signal.SIGCONT, 0.1)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            time.sleep(pause_s)


def run(fault: Fault, rules: str, folder: Path) -> tuple[Trial, float, dict[str, Any]]:
    """One drive: the trial, the kart's speed when all was over, and the driver's metrics."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    folder.mkdir(parents=True)
    switch = folder / "fault.on"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROAD_COURSE": COURSE,
        "ROAD_FAULT": fault.name,
        "ROAD_SWITCH": str(switch),
    }
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("between")
    between = Between(node, fault, switch)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    processes = Processes(folder, environment)
    try:
        processes.start(
            "closed_loop.simulator.node",
            [f"{topic.name}:={TRUE}{topic.name}" for topic in STREAMS],
            course=COURSE,
            expert=False,
            image_width=320,
            image_height=180,
            start_s_m=between.curve_m - BEFORE_M - RUN_UP_M,
        )
        log = processes.start(
            "closed_loop.ros.drive_node",
            [],
            out=folder / "drive",
            policy="tests.helpers.road_policy:RoadPolicy",
            use_sim_time=True,
            laps=0,
            off_road_s=0.0,
            rules=rules,
            evaluator=False,
            wait_s=30.0,
        )
        driver = processes.started[1]
        deadline_s, ended_s, starved = time.monotonic() + START_S, math.inf, False
        while time.monotonic() < min(deadline_s, ended_s + END_S):
            executor.spin_once(timeout_sec=0.02)
            now_s = time.monotonic()
            if between.began_s is not None and fault.signals and not starved:
                starved = True
                policy = re.search(r"policy process (\d+) loads", log.read_text(errors="replace"))
                pid = driver.pid if fault.signals == "driver" else int(policy.group(1)) if policy else driver.pid
                threading.Thread(target=starve, args=(pid, between.began_s + FAULT_S), daemon=True).start()
            if between.began_s is not None and ended_s == math.inf and now_s > between.began_s + FAULT_S + AFTER_S:
                ended_s, deadline_s = now_s, math.inf
                if driver.poll() is None:
                    driver.send_signal(signal.SIGINT)
        end_mps = between.truth[-1].speed_mps if between.truth else math.nan
    finally:
        processes.close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    trial = between.trial(ended_s)
    braking = re.findall(r"braking: ([^\n]*)", log.read_text(errors="replace"))
    # Neither before the first frame nor at the end is a fault's doing.
    others = ("no camera frame yet", "no odometry yet", STOPPING)
    braking = [line for line in braking if not line.startswith(others)]
    trial.reason = trial.reason or (braking[1] if len(braking) > 1 and braking[0].startswith("no plan") else "")
    metrics = folder / "drive" / "metrics.json"
    return trial, end_mps, json.loads(metrics.read_text()) if metrics.is_file() else {}


def failure(fault: Fault, trial: Trial, end_mps: float) -> str:
    """What is wrong with a drive, empty when nothing is."""
    wrong = []
    if not end_mps < STANDING_MPS:
        wrong.append(f"moving with {end_mps:.1f} m/s at the end")
    if fault.expected == "brake" and (trial.braked_s is None or trial.braked_s > WITHIN_S):
        wrong.append("braked late" if trial.braked_s else "never braked")
    if fault.expected == "none" and trial.reason:
        wrong.append("braked for nothing")
    if fault.expected == "brake" and trial.beyond_m > 0.0:
        wrong.append(f"{trial.beyond_m:.1f} m off the road")
    return ", ".join(wrong)


def main() -> int:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", choices=("free", "e2e"), default="free")
    parser.add_argument("--kinds", nargs="*", default=[], help="words of which a kind's name has to hold one")
    parser.add_argument("--out", type=Path, help="folder for logs; a temporary one by default")
    arguments = parser.parse_args()
    # Whoever ends this ends the processes of the drive under way too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    root = arguments.out or Path(tempfile.mkdtemp(prefix="faults-"))
    for topic in (*STREAMS, topics.CONTROL_CMD):
        message_class(topic.type)
    stream = {"free": {"odometry"}, "e2e": {"wheels", "steering"}}[arguments.rules] | {"frame", "plan", "clock"}
    kinds = [fault for fault in (NOTHING, *FAULTS) if not fault.changes or stream & fault.changes.keys()]
    kinds = [fault for fault in kinds if not arguments.kinds or any(word in fault.name for word in arguments.kinds)]
    print(f"rules {arguments.rules}, logs in {root}")
    print("| fault | first braking command | standstill | driven until then | over the edge | drove on | reason |")
    print("|---|---|---|---|---|---|---|", flush=True)
    failures = {}
    for number, fault in enumerate(kinds):
        trial, end_mps, _ = run(fault, arguments.rules, root / f"{number:02d}")
        print(trial.row(), flush=True)
        if wrong := failure(fault, trial, end_mps):
            failures[fault.name] = wrong
    for name, wrong in failures.items():
        print(f"FAILED {name}: {wrong}")
    print(f"{len(kinds)} kinds, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
