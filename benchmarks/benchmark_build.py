"""What a build costs: frames per second of raw 1920x1080 bags, peak memory, and reading a long metadata.jsonl.

    python benchmarks/benchmark_build.py [--frames 100] [--lines 1000000] [--skip speed memory lines] [--place FOLDER]

Speed is compared with a plain loop of rosbags and cv2.imencode over the same bag in the same run, memory between a bag
and one ten times as long (some 6 GB for 1000 frames, deleted at once), reading lines with plain json.loads.
Every measurement is a process of its own, so that memory and imports of one do not count for the next.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WIDTH, HEIGHT, QUALITY = 1920, 1080, 95
# A run is repeated and its best taken: other work on the machine only ever makes it slower.
_REPEATS = 3


def write_raw_bag(folder: Path, storage: str, frames: int) -> Path:
    """A drive past ``frames`` raw frames: views of the simulator with a camera's noise, poses at 25 Hz."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    from closed_loop.course.design import course_named
    from closed_loop.simulator.camera import FRONT
    from closed_loop.simulator.scene import Scene
    from collector.bags.reader import typestore
    from collector.ros.topics import CAMERA_IMAGE, ODOMETRY
    from tests.helpers.synthetic_bag import camera_stamps, drive_course, image_cdr, odometry_cdr

    course = course_named("city")
    scene, camera, rng = Scene(course, seed=1), FRONT.sized(WIDTH, HEIGHT), np.random.default_rng(0)
    views = [scene.render(camera, course.pose_at(part * course.length_m, 0.3)) for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
    noisy = [np.clip(view + rng.normal(0.0, 3.0, view.shape), 0, 255).astype(np.uint8) for view in views]
    drive = drive_course(((0.105 * frames * 5.0 + 40.0, 0.0),))
    stamps = camera_stamps(drive)[:frames].tolist()
    messages = [(ns + 1, ODOMETRY.name, n) for n, ns in enumerate(drive.stamps_ns.tolist())]
    messages += [(ns + 2, CAMERA_IMAGE.name, n) for n, ns in enumerate(stamps)]
    with Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        connections = {
            topic.name: writer.add_connection(topic.name, topic.type, typestore=typestore())
            for topic in (CAMERA_IMAGE, ODOMETRY)
        }
        for received_ns, name, number in sorted(messages):
            if name == ODOMETRY.name:
                cdr = odometry_cdr(int(drive.stamps_ns[number]), drive.poses[number], 5.0)
            else:
                cdr = image_cdr(stamps[number], noisy[number % len(noisy)])
            writer.write(connections[name], received_ns, cdr)
    return folder


def plain_loop(bag: str) -> int:
    """What one would write by hand: read, deserialise, compress, write; returns the frames."""
    import cv2
    from rosbags.highlevel import AnyReader

    frames = 0
    with AnyReader([Path(bag)]) as reader, tempfile.TemporaryDirectory(dir=Path(bag).parent) as out:
        connections = [c for c in reader.connections if c.msgtype == "sensor_msgs/msg/Image"]
        for connection, _, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection.msgtype)
            image = message.data.reshape(message.height, message.width, 3)
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            (Path(out) / f"{frames}.jpg").write_bytes(data.data)
            frames += 1
    return frames


def build(bag: str, workers: int) -> int:
    """The real build with every setting at its default; returns the frames that were compressed."""
    from collector.dataset.builder import build_dataset
    from collector.dataset.config import BuildConfig

    with tempfile.TemporaryDirectory(dir=Path(bag).parent) as place:
        config = BuildConfig((Path(bag),), Path(place) / "out", val_fraction=0.0, workers=workers)
        build_dataset(config, show_progress=False)
        return len(list((config.out / "images").iterdir()))


def read_lines(file: str, reader: str) -> int:
    """Read every line of a dataset's metadata; returns their number."""
    if reader == "json":
        with Path(file).open("rb") as lines:
            return sum(json.loads(line) is not None for line in lines)
    from collector.dataset.schema import read_samples

    return sum(1 for _ in read_samples(Path(file).parent))


JOBS = {"plain": plain_loop, "build": lambda bag, workers: build(bag, int(workers)), "read": read_lines}


def measured(job: str, *words: str, repeats: int = 1) -> dict[str, float]:
    """Run a job in processes of its own; its count, seconds, processor seconds and peak memory, of the fastest run."""
    command = [sys.executable, str(Path(__file__).resolve()), "--job", job, *words]
    rows = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeats)]
    return min(rows, key=lambda row: row["cpu_s"] if job == "plain" else row["wall_s"])


def one_job(job: str, words: list[str]) -> None:
    """The other side of :func:`measured`; imports are done before the clock starts."""
    import cv2  # noqa: F401
    import rosbags.highlevel  # noqa: F401

    import collector.dataset.builder
    import collector.dataset.schema  # noqa: F401

    wall, cpu = time.perf_counter(), time.process_time()
    count = JOBS[job](*words)  # type: ignore[operator]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not getrusage: its peak begins with that of the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    peak_mb = int(found[1]) / 1024 if found else 0.0
    print(json.dumps({"count": count, "wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb}))


def report_speed(place: Path, frames: int, storage: str) -> Path:
    """Frames per second of the plain loop and of builds with one and two workers; returns the bag."""
    bag = write_raw_bag(place / storage, storage, frames)
    rows = {
        "plain loop": measured("plain", str(bag), repeats=_REPEATS),
        "build, 1 worker": measured("build", str(bag), "1", repeats=_REPEATS),
        "build, 2 workers": measured("build", str(bag), "2", repeats=_REPEATS),
    }
    for name, row in rows.items():
        # All frames had to be read; the build compresses those that a sample needs.
        print(
            f"{storage:8s} {name:17s} {frames / row['cpu_s']:6.1f} frames per processor second, "
            f"{frames / row['wall_s']:6.1f} per second, {row['count']:.0f} of {frames} compressed, "
            f"peak {row['peak_mb']:.0f} MB",
            flush=True,
        )
    return bag


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100, help="of the short bag; the long one has ten times as many")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the metadata.jsonl, some 3 KB each")
    parser.add_argument("--skip", nargs="*", default=[], choices=["speed", "memory", "lines"], help="leave these out")
    parser.add_argument("--place", type=Path, help="folder for the bags, which are deleted at the end")
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        one_job(arguments.job[0], arguments.job[1:])
        return
    place = Path(tempfile.mkdtemp(prefix="benchmark-build-", dir=arguments.place))
    try:
        if "speed" not in arguments.skip:
            for storage in ("mcap", "sqlite3"):
                shutil.rmtree(report_speed(place, arguments.frames, storage))
        if "memory" not in arguments.skip:
            report_memory(place, arguments.frames)
        if "lines" not in arguments.skip:
            report_lines(place, arguments.lines)
    finally:
        shutil.rmtree(place)


def report_memory(place: Path, frames: int) -> None:
    """Peak memory on a bag and on one ten times as long, one and two workers."""
    peaks: dict[tuple[int, int], float] = {}
    for times in (1, 10):
        bag = write_raw_bag(place / f"mcap-{times}", "mcap", times * frames)
        for workers in (1, 2):
            peaks[times, workers] = measured("build", str(bag), str(workers))["peak_mb"]
        shutil.rmtree(bag)
    for workers in (1, 2):
        short, long = peaks[1, workers], peaks[10, workers]
        print(f"memory, {workers} worker(s): {short:.0f} MB at 1x, {long:.0f} MB at 10x ({long / short - 1:+.1%})")


def report_lines(place: Path, count: int) -> None:
    """Time and memory of reading ``count`` samples, checked, against parsing the same lines as JSON only."""
    from collector.dataset.builder import build_dataset
    from collector.dataset.config import BuildConfig
    from tests.helpers.synthetic_bag import drive_course, write_bag

    bag = write_bag(place / "small", drive_course())
    build_dataset(BuildConfig((bag,), place / "out", val_fraction=0.0), show_progress=False)
    lines = (place / "out/metadata.jsonl").read_bytes().splitlines(keepends=True)
    file = place / "out/metadata.jsonl"
    with file.open("wb") as stream:
        for number in range(count):
            stream.write(lines[number % len(lines)])
    for name, reader in (("json.loads", "json"), ("read_samples", "samples")):
        row = measured("read", str(file), reader)
        print(
            f"{name:12s} {row['count']:.0f} lines ({file.stat().st_size / 1e9:.1f} GB): {row['cpu_s']:.1f} s of "
            f"processor, {row['cpu_s'] / row['count'] * 1e6:.1f} us a line, peak {row['peak_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
