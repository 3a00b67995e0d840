"""Frames per second of the embedded simulator's cameras on one core.

python benchmarks/benchmark_camera.py [--course city] [--frames 200]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FOUR_CAMERAS, FRONT
from closed_loop.simulator.scene import Scene


def main() -> None:
    """Print one line per camera: processor seconds count, so that a busy machine does not spoil the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--course", default="city", help="city, city-mirror, random:SEED or a file")
    parser.add_argument("--frames", type=int, default=200, help="pictures per camera, spread over one lap")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    course = course_named(arguments.course)
    began = time.process_time()
    scene = Scene(course, seed=1)
    size = sum(level.nbytes for level in scene.ground.levels) / 1e6
    print(f"{course.name}: scene painted in {time.process_time() - began:.2f} s, texture {size:.0f} MB")
    poses = [course.pose_at(k * course.length_m / arguments.frames, 0.3) for k in range(arguments.frames)]
    for camera in (*FOUR_CAMERAS, FRONT.sized(320, 180), FRONT.sized(1920, 1080)):
        scene.render(camera, poses[0])
        cpu, wall = time.process_time(), time.perf_counter()
        for pose in poses:
            scene.render(camera, pose)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(
            f"{camera.name:12s} {camera.width_px}x{camera.height_px}: {arguments.frames / cpu:6.1f} frames per "
            f"processor second, {arguments.frames / wall:6.1f} per wall second"
        )


if __name__ == "__main__":
    main()
