"""Drives of the embedded simulator's expert, written as bags whose camera lags and looks down by a known amount."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FRONT, Camera
from closed_loop.simulator.expert import ExpertConfig
from closed_loop.simulator.world import World, WorldConfig
from collector.bags.reader import typestore
from collector.bags.writer import BagWriter
from collector.geometry.poses import interpolate_poses
from collector.ros.topics import CAMERA_INFO, CAMERA_JPEG, ODOMETRY, Topic
from tests.helpers.rollouts import drive
from tests.helpers.synthetic_bag import START_NS, compressed_cdr, odometry_cdr

ODOMETRY_S, FRAME_S = 0.02, 0.1
JPEG_QUALITY = 90
# White, at 50 Hz: 0.005 rad make 0.07 rad/s of yaw rate from frame to frame.
POSITION_NOISE_M, YAW_NOISE_RAD = 0.03, 0.005


def camera_info_cdr(camera: Camera) -> bytes:
    types = typestore().types
    kind = types[CAMERA_INFO.type]
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    roi = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    message = kind(
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=CAMERA_INFO.frame_id),
        height=camera.height_px,
        width=camera.width_px,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=camera.K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([camera.K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
    return bytes(typestore().serialize_cdr(message, CAMERA_INFO.type))


def write_planted_bag(
    folder: Path,
    course: str | Course,
    *,
    seed: int = 0,
    seconds: float = 40.0,
    lag_s: float = 0.0,
    pitch_rad: float = 0.0,
    hfov_deg: float = 90.0,
    with_info: bool = True,
    disturb: bool = True,
) -> Path:
    """Drive and record: a picture with stamp t shows the world at t - ``lag_s``; the odometry is noisy, not late."""
    place = course_named(course) if isinstance(course, str) else course
    world = World(place, seed, WorldConfig(disturb_every_s=8.0 if disturb else None))
    plan = RolloutConfig(laps=99.0, max_time_s=seconds, record_s=ODOMETRY_S, start_speed_mps=2.0)
    driven = drive(world, ExpertConfig(), plan, seed)
    camera = replace(FRONT, pitch_rad=pitch_rad, hfov_rad=float(np.radians(hfov_deg)))
    stamps_ns = START_NS + np.round(driven.t_s * 1e9).astype(np.int64)
    rng = np.random.default_rng([41, seed])
    noise = np.array([POSITION_NOISE_M, POSITION_NOISE_M, YAW_NOISE_RAD])
    messages: list[tuple[int, str, Any]] = [
        (int(stamp_ns) + 1_000_000, ODOMETRY.name, odometry_cdr(int(stamp_ns), pose, speed_mps))
        for stamp_ns, pose, speed_mps in zip(
            stamps_ns, driven.poses + noise * rng.standard_normal(driven.poses.shape), driven.speed_mps, strict=True
        )
    ]
    step_ns, lag_ns = round(FRAME_S * 1e9), round(lag_s * 1e9)
    # Off the odometry's beat, and late enough for the first picture to show something driven.
    for stamp_ns in range(int(stamps_ns[0]) + 207_000_000, int(stamps_ns[-1]) - 10_000_000, step_ns):
        shown = interpolate_poses(stamps_ns, driven.poses, [stamp_ns - lag_ns])[0]
        bgr = world.scene.render(camera, shown)[..., ::-1]
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        messages.append((stamp_ns + 2_000_000, CAMERA_JPEG.name, compressed_cdr(stamp_ns, data)))
    topics: list[Topic] = [CAMERA_JPEG, ODOMETRY]
    if with_info:
        topics.append(CAMERA_INFO)
        messages.append((int(stamps_ns[0]), CAMERA_INFO.name, camera_info_cdr(camera)))
    writer = BagWriter(folder, topics)
    for received_ns, name, data in sorted(messages, key=lambda message: message[0]):
        writer.write(name, received_ns, data)
    writer.close()
    return folder
