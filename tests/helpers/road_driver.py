"""A policy that knows the road, and sees where it is by a mark in the picture: it plans by what it saw.

The mark is the number of a place, in the first row of the picture, 8 pixels to a bit. Without it a picture shows
nothing: then the policy goes straight on, as a model does.
"""

from __future__ import annotations

import numpy as np

from closed_loop.course.course import Course
from closed_loop.simulator.expert import ExpertConfig, speed_profile
from collector.geometry.poses import to_ego

BITS, BIT_PX = 24, 8
PLACE_M, YAWS = 0.01, 256


def mark(image: np.ndarray, number: int) -> None:
    """Write a number into a picture, in place."""
    for index in range(BITS):
        image[0, index * BIT_PX : (index + 1) * BIT_PX] = 250 if number >> index & 1 else 5
    parity = number.bit_count() % 4
    for index in range(2):
        image[0, (BITS + index) * BIT_PX : (BITS + index + 1) * BIT_PX] = 250 if parity >> index & 1 else 5


def read_mark(image: np.ndarray) -> int | None:
    """The number of a picture, None where there is none."""
    if image.shape[1] < (BITS + 2) * BIT_PX:
        return None
    levels = [int(image[0, index * BIT_PX + BIT_PX // 2, 1]) for index in range(BITS + 2)]
    if not all(level < 40 or level > 215 for level in levels):
        return None
    bits = [level > 215 for level in levels]
    number = sum(bit << index for index, bit in enumerate(bits[:BITS]))
    return number if number.bit_count() % 4 == bits[BITS] + 2 * bits[BITS + 1] else None


def number_of(pose: np.ndarray, course: Course) -> int:
    """A place beside a course and a heading (along the course) as a number: station, lateral and heading."""
    foot = course.project(pose[:2])
    station, lateral = float(foot.s_m), float(foot.lateral_m)
    heading = float(np.angle(np.exp(1j * (pose[2] - float(foot.yaw_rad)))))
    fields = (round(station / 0.1) % 8192, round(lateral / 0.05) + 32, round(heading / 0.05) + 16)
    return fields[0] | min(max(fields[1], 0), 63) << 13 | min(max(fields[2], 0), 31) << 19


def pose_of(number: int, course: Course) -> np.ndarray:
    """The place (3,) of a number."""
    station, lateral, heading = number & 8191, number >> 13 & 63, number >> 19 & 31
    pose = np.array(course.pose_at(station * 0.1, (lateral - 32) * 0.05))
    pose[2] += (heading - 16) * 0.05
    return pose


class RoadPlanner:
    """Plans along the middle of the road, as fast as its bends allow."""

    def __init__(self, course: Course, max_speed_mps: float = 5.0) -> None:
        self.course = course
        self.speed_mps = speed_profile(course, ExpertConfig(max_speed_mps=max_speed_mps, lateral_accel_mps2=4.0))

    def plan(self, image: np.ndarray, speed_mps: float) -> np.ndarray:
        """(64, 3) ego poses from what a picture shows."""
        number = read_mark(image)
        if number is None:
            steps_m = max(speed_mps, 0.5) * 0.1 * np.arange(1, 65)
            return np.column_stack([steps_m, np.zeros((64, 2))])
        pose = pose_of(number, self.course)
        foot = self.course.project(pose[:2])
        station, lateral = float(foot.s_m), float(foot.lateral_m)
        speed, way, poses = max(speed_mps, 0.0), 0.0, []
        for _ in range(64):
            allowed = float(self.course.at([station + way], self.speed_mps)[0])
            speed = min(speed + 0.1, allowed) if speed < allowed else max(speed - 0.3, allowed)
            way += speed * 0.1
            poses.append(self.course.pose_at(station + way, lateral * float(np.exp(-way / 4.0))))
        return to_ego(np.array(poses), pose)
