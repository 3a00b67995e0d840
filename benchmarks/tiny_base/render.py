"""Render the four-camera shards from which the tiny base is trained.

Each shard is one seeded random course: the expert is led astray for a moment, recovers, and from the moment of
recovery on every tenth of a second is a sample. No ROS, one process per core.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.tiny_base.architecture import IMAGES
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FOUR_CAMERAS
from closed_loop.simulator.expert import DisturbanceConfig, Expert, ExpertConfig, draw_phase
from closed_loop.simulator.scene import Scene
from closed_loop.simulator.vehicle import Vehicle
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.geometry.poses import to_ego
from finetune.policy import CAMERA_ORDER, FRAMES_PER_CAMERA, FUTURE_STEPS, HISTORY_STEPS, STEP_S
from finetune.processing.images import resize

# Seeds below belong to the base; recording for finetuning and the held-out comparison use others.
BASE_SEEDS = range(4000)
PHYSICS_S, CONTROL_EVERY, RECORD_EVERY = 0.0125, 2, 8
CAMERAS = {camera.name: camera for camera in FOUR_CAMERAS}


@dataclass(frozen=True)
class BaseDataConfig:
    """Render training data of the tiny base.

    Attributes:
        out: folder of shards, one random course each; shards that exist are kept.
        courses: how many courses.
        first_seed: seed of the first one; seeds must stay below 4000, which are the base's own.
        episodes: starts per course.
        window_s: seconds of samples after each recovery begins.
        clean_share: share of episodes without a disturbance.
        workers: processes; 0 takes one per core.
    """

    out: Path
    courses: int = 400
    first_seed: int = 0
    episodes: int = 4
    window_s: float = 2.4
    clean_share: float = 0.15
    workers: int = 0


def drive_episode(
    course: Course, config: BaseDataConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float64], int, int]:
    """One start, disturbance and recovery.

    Returns:
        Poses (T, 3) every 0.1 s, and the first and last index that is a t0.
    """
    disturbance = DisturbanceConfig()
    expert, vehicle = Expert(course, ExpertConfig()), Vehicle()
    station = rng.uniform(0.0, course.length_m)
    speed = float(course.at(station, expert.speed_mps)) * rng.uniform(0.7, 1.1)
    lateral, heading = rng.uniform(-1.0, 1.0), rng.normal(0.0, 0.15)
    clean = rng.random() < config.clean_share
    phase = draw_phase(rng, 0.0, course, vehicle.params, disturbance)
    start = course.pose_at(station, 0.0 if clean else lateral)
    if not clean:
        start[2] += heading
    vehicle.place(start, speed)
    # The first t0 needs a full history, and stands at the end of the disturbance or up to half a second before it.
    first = max(HISTORY_STEPS - 1, int(np.ceil((phase.end_s - rng.uniform(0.0, 0.5)) / STEP_S)))
    last = first + round(config.window_s / STEP_S)
    poses = []
    steer = accel = 0.0
    for index in range((last + FUTURE_STEPS) * RECORD_EVERY + 1):
        if index % RECORD_EVERY == 0:
            poses.append(vehicle.state.pose)
        if index % CONTROL_EVERY == 0:
            now = index * PHYSICS_S
            command = expert.command(vehicle.state, now, None if clean else phase.at(now))
            steer, accel = command.steer_rad, command.accel_mps2
        vehicle.step(steer, accel, PHYSICS_S)
    return np.array(poses), first, last


def render_course(seed: int, config: BaseDataConfig) -> int:
    """Render the shard of one course; returns its number of samples."""
    path = config.out / f"course_{seed:05d}.npz"
    if path.is_file():
        with np.load(path) as shard:
            return len(shard["frame_index"])
    course = course_named(f"random:{seed}")
    scene = Scene(course, seed)
    rng = np.random.default_rng([seed, 1])
    frames: list[NDArray[np.uint8]] = []
    index, history, future = [], [], []
    for _ in range(config.episodes):
        poses, first, last = drive_episode(course, config, rng)
        start = len(frames) - (first - FRAMES_PER_CAMERA + 1)
        for at in range(first - FRAMES_PER_CAMERA + 1, last + 1):
            views = [resize(scene.render(CAMERAS[name], poses[at]), IMAGES) for name in CAMERA_ORDER]
            frames.append(np.stack(views))
        for at in range(first, last + 1):
            index.append(start + at)
            history.append(to_ego(poses[at - HISTORY_STEPS + 1 : at + 1], poses[at]))
            future.append(to_ego(poses[at + 1 : at + 1 + FUTURE_STEPS], poses[at]))
    partial_path = path.with_suffix(".part.npz")
    np.savez(
        partial_path,
        frames=np.stack(frames),
        frame_index=np.array(index),
        history=np.stack(history),
        future=np.stack(future),
    )
    partial_path.rename(path)  # a killed run leaves no half shard under a finished name
    return len(index)


def render(config: BaseDataConfig) -> int:
    """Render all shards; returns the number of samples.

    Raises:
        MonoError: seeds outside the base's own.
    """
    seeds = range(config.first_seed, config.first_seed + config.courses)
    if not seeds or seeds[0] not in BASE_SEEDS or seeds[-1] not in BASE_SEEDS:
        raise MonoError(
            f"course seeds {seeds.start} to {seeds.stop - 1}",
            f"seeds {BASE_SEEDS.start} to {BASE_SEEDS.stop - 1}",
            "others are kept for recording and for held-out courses; lower --courses or --first-seed",
        )
    config.out.mkdir(parents=True, exist_ok=True)
    workers = config.workers or os.cpu_count() or 1
    total = 0
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_single_thread) as pool:
        work = pool.imap_unordered(partial(render_course, config=config), seeds)
        for count in tqdm(work, total=len(seeds), desc="render", unit="course", mininterval=5, dynamic_ncols=True):
            total += count
    print(f"{total} samples on {len(seeds)} courses in {config.out}")
    return total


def _single_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m benchmarks.tiny_base.render``."""
    render(command_line(BaseDataConfig, argv, "python -m benchmarks.tiny_base.render"))


if __name__ == "__main__":
    main()
