"""Dead-reckoned against true: where the kart was 1.5 s ago, and the whole history, at every picture of a lap.

    python benchmarks/benchmark_dead_reckoning.py [--seconds 90] [DRIVE ...]

The expert drives a lap of each course in the simulator's end-to-end mode (pictures every 105 ms, garbage heading
rates); the history that a model would be shown comes from the wheels' reports, its truth from the world. ``noisy``:
with white noise of 0.01 rad and 0.1 m/s on each report. ``odd``: a kart whose wheels report by other scales, once
unknown and once known. DRIVE: folders of `drive`, their wheels (drive.npz) against the evaluator's truth (truth.npz).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closed_loop.control.buffers import HISTORY_SPAN_NS, PoseBuffer
from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.sensors import Sensors
from closed_loop.simulator.world import World, config_of
from collector.geometry.constants import NS_PER_S, STEP_NS
from collector.geometry.poses import FloatArray, interpolate_poses, to_ego
from collector.ros.topics import CONTROL_HZ
from collector.vehicle.dead_reckoning import DeadReckoning
from collector.vehicle.model import KART, VehicleModel
from finetune.policy import HISTORY_STEPS

COURSES = ("city", "city-mirror", "random:9001")
NOISE_MPS, NOISE_RAD = 0.1, 0.01
ODD = replace(KART, report_scale=1.15, speed_scale=0.92)
Histories = Iterator[tuple[FloatArray, FloatArray]]  # (16, 3) reckoned and true, in the ego frame at t0


def lap(course: str, kart: VehicleModel, believed: VehicleModel, seconds: float, noise: float = 0.0) -> Histories:
    """Histories at every picture of a drive."""
    world = World(course_named(course), 0, config_of("e2e", kart))
    experts, sensors = ExpertPool(ExpertConfig(vehicle=world.config.vehicle)), Sensors(world, [])
    reckoning, reckoned, true, hz = DeadReckoning(believed), PoseBuffer(), PoseBuffer(), world.config.physics_hz
    command, asked_ns, rng = None, None, np.random.default_rng(3)
    for step in range(round(seconds * hz)):
        stamp_ns, state = round(step * NS_PER_S / hz), world.state
        if command is None or is_due(step, CONTROL_HZ, hz):
            command = experts.for_course(world.course).command(state, world.time_s, world.disturbance)
        true.add(stamp_ns, (state.x_m, state.y_m, state.yaw_rad), state.speed_mps)
        if (wheels := sensors.wheels(step)) is not None:
            speed_off, angle_off = noise * rng.standard_normal(2) * (NOISE_MPS, NOISE_RAD)
            reckoning.velocity(stamp_ns, wheels.speed_mps + speed_off, wheels.heading_rate_radps)
            place = reckoning.steering(stamp_ns, wheels.tire_angle_rad + angle_off)
            if place is not None:
                reckoned.add(place.stamp_ns, place.pose_odom, place.speed_mps)
            if asked_ns is not None and reckoned.covers(asked_ns):
                one, other = reckoned.history(asked_ns), true.history(asked_ns)
                asked_ns = None
                if one is not None and other is not None and world.speed_mps > 0.5:
                    yield one, other
        if is_due(step, world.config.camera_hz, hz):
            asked_ns = stamp_ns
        world.step(command)


def driven(folder: Path) -> Histories:
    """Histories ten times a second of a drive over ROS 2."""
    wheels, truth = np.load(folder / "drive.npz"), np.load(folder / "truth.npz")
    stamps = [np.round(table["t_s"] * NS_PER_S).astype(np.int64) for table in (wheels, truth)]
    poses = wheels["poses_odom"], truth["poses_map"]
    first, last = max(each[0] for each in stamps), min(each[-1] for each in stamps)
    back_ns = STEP_NS * np.arange(HISTORY_STEPS - 1, -1, -1)
    for stamp_ns in range(int(first + HISTORY_SPAN_NS), int(last), STEP_NS):
        shown = [interpolate_poses(s, p, stamp_ns - back_ns) for s, p in zip(stamps, poses, strict=True)]
        yield to_ego(shown[0], shown[0][-1]), to_ego(shown[1], shown[1][-1])


def row(name: str, histories: Histories) -> str:
    """One line of the table."""
    pairs = np.array(list(histories))
    off_m = np.hypot(*(pairs[:, 0, :, :2] - pairs[:, 1, :, :2]).transpose(2, 0, 1))
    way_m = np.hypot(*np.diff(pairs[:, 1, :, :2], axis=1).transpose(2, 0, 1)).sum(axis=1)
    p50, p95, most = np.percentile(off_m[:, 0], (50, 95, 100)) * 100.0
    share = 100.0 * np.median(off_m[:, 0] / np.maximum(way_m, 0.1))
    cells = f"{p50:.1f} cm | {p95:.1f} cm | {most:.1f} cm | {share:.2f} %"
    return f"| {name} | {len(pairs)} | {way_m.mean():.1f} m | {cells} |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("drives", nargs="*", type=Path)
    options = parser.parse_args()
    print("| drive | histories | way in 1.5 s | p50 at 1.5 s | p95 | max | p50, part of the way |\n" + "|---" * 7 + "|")
    for course in COURSES:
        print(row(course, lap(course, KART, KART, options.seconds)), flush=True)
        print(row(f"{course}, noisy", lap(course, KART, KART, options.seconds, 1.0)), flush=True)
    for name, believed in (("unknown", KART), ("identified", ODD)):
        print(row(f"city, odd kart {name}", lap("city", ODD, believed, options.seconds)), flush=True)
    for folder in options.drives:
        print(row(str(folder), driven(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
