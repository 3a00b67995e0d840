"""What the recorder loses and costs at 1920x1080, against a plain rclpy + rosbags recorder; and what a kill costs.

    python benchmarks/benchmark_recorder.py [--seconds 60] [--rates 10,30] [--out FOLDER]
    python benchmarks/benchmark_recorder.py --kills 20

Publisher and recorder are processes of their own and talk over the real middleware, so the figures hold for the cores
both share. Needs rclpy. CPU is the recorder process's own, of one core, between first and last frame.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from collector.recording.report import read_report  # noqa: E402
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG  # noqa: E402
from tests.helpers.recorder_trials import TOO_LATE_MS, kill_trial, sent_stamps, stored_stamps  # noqa: E402
from tests.helpers.ros_processes import Domain, Node, until  # noqa: E402

OURS, PLAIN = "collector.recording.node", "plain_recorder"


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each recording")
    parser.add_argument("--rates", default="10,30", help="frames per second, comma-separated")
    parser.add_argument("--size", default="1920x1080", help="of the frames")
    parser.add_argument("--kills", type=int, default=0, help="kill so many recordings instead")
    parser.add_argument("--seed", type=int, default=2026, help="of the moments to kill at")
    parser.add_argument("--out", type=Path, help="folder on the disk to measure; empty takes a temporary one")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="recorder-", dir=arguments.out))
    width, height = map(int, arguments.size.split("x"))
    print(f"{os.cpu_count()} cores, load before the run {os.getloadavg()[0]:.1f}, frames of {width}x{height}")
    try:
        if arguments.kills:
            kill(folder, arguments.kills, arguments.seed, width, height)
            return
        for rate in map(float, arguments.rates.split(",")):
            for module in (OURS, PLAIN):
                place = folder / f"{module}-{rate:g}"
                place.mkdir()
                record(place, module, rate, width, height, arguments.seconds)
                shutil.rmtree(place)  # raw frames fill a disk
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def domain_in(folder: Path) -> Domain:
    """A ROS domain whose nodes find this folder's modules too."""
    domain = Domain(folder)
    domain.environment["PYTHONPATH"] += os.pathsep + str(ROOT / "benchmarks")
    return domain


def record(folder: Path, module: str, rate: float, width: int, height: int, seconds: float) -> None:
    """One recording by one recorder."""
    domain, bag, log = domain_in(folder), folder / "bag", folder / "sent.txt"
    try:
        options = {"max_loss": 1.0} if module == OURS else {}
        recorder = domain.start(module, out=bag, **options)
        publisher = domain.start(
            "tests.helpers.camera_publisher", log=log, hz=rate, width=width, height=height, seconds=seconds
        )
        until(lambda: log.exists() and log.stat().st_size, 60.0, lambda: recorder.output + publisher.output)
        before_s, began_s = cpu_seconds(recorder), time.monotonic()
        publisher.wait_for("frames sent", seconds * 3.0 + 60.0)
        share = (cpu_seconds(recorder) - before_s) / (time.monotonic() - began_s)
        publisher.wait()
        code = recorder.interrupt()
        assert code == 0, recorder.output
        sent = sent_stamps(log)[CAMERA_JPEG.name]
        frames = stored_stamps(bag)
        held = set(frames.get(CAMERA_JPEG.name, ())) | set(frames.get(CAMERA_IMAGE.name, ()))
        missing = len({stamp for stamp, _ in sent} - held)
        size = sum(path.stat().st_size for path in bag.glob("*.mcap"))
        line = (
            f"{module:22s} {rate:4.0f} Hz for {seconds:.0f} s: {len(sent)} frames sent, {missing} missing, "
            f"{share:.2f} cores, {size / seconds / 1e6:.1f} MB/s; publisher late by {max(x for _, x in sent):.0f} ms"
        )
        if module == OURS:
            report = read_report(bag)
            others = sum(row.missing for row in report.topics if row.name != CAMERA_JPEG.name)
            (camera,) = (row for row in report.topics if row.name == CAMERA_JPEG.name)
            line += (
                f"; report: {camera.missing} frames missing, worst gap {(camera.worst_gap_s or 0.0) * 1e3:.0f} ms, "
                f"{others} other messages missing, {report.jpeg_queue_high_water} frames waited at most"
            )
        print(line, flush=True)
    finally:
        domain.close()


def kill(folder: Path, kills: int, seed: int, width: int, height: int) -> None:
    """Kill recordings at random moments; prints a line per kill and a verdict."""
    domain, log = domain_in(folder), folder / "sent.txt"
    rng, good, void = np.random.default_rng(seed), 0, 0
    try:
        domain.start("tests.helpers.camera_publisher", log=log, width=width, height=height)
        for number in range(kills):
            bag = folder / f"bag{number}"
            trial = kill_trial(domain, bag, log, float(rng.uniform(0.2, 5.0)))
            shutil.rmtree(bag)
            good += trial.lost == 0 and trial.messages > 0
            void += trial.late_ms > TOO_LATE_MS
            print(
                f"kill {number + 1:2d}: {trial.messages} messages readable, {trial.lost} of {trial.sent} older than "
                f"1 s lost, newest {trial.newest_s:.2f} s old, publisher late by {trial.late_ms:.0f} ms",
                flush=True,
            )
    finally:
        domain.close()
    print(f"{good} of {kills} bags readable without a loss older than 1 s ({void} on a machine that stood still)")


def cpu_seconds(node: Node) -> float:
    """Processor seconds a process has used."""
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
