"""Small recorded drives of known geometry, written as real bags."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from collector.bags.reader import typestore
from collector.bags.writer import BagWriter
from collector.ros.topics import AWSIM_STATUS, CAMERA_IMAGE, CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS, Topic

SECOND = 1_000_000_000
START_NS = 100 * SECOND
# Metres and 1/m: a straight, a left bend, a straight, a right bend, an S, a straight.
COURSE = ((20, 0.0), (12, 0.12), (15, 0.0), (12, -0.18), (15, 0.0), (9, 0.14), (9, -0.14), (25, 0.0))


@dataclass(frozen=True)
class SyntheticDrive:
    """Poses of a drive: (N,) stamps, (N, 3) map poses and (N,) speeds at 25 Hz."""

    stamps_ns: np.ndarray
    poses: np.ndarray
    speeds_mps: np.ndarray

    def mirrored(self) -> SyntheticDrive:
        return SyntheticDrive(self.stamps_ns, self.poses * [1.0, -1.0, -1.0], self.speeds_mps)

    def moved(self, dx_m: float, dy_m: float, turn_rad: float) -> SyntheticDrive:
        x, y, yaw = self.poses.T
        cos, sin = np.cos(turn_rad), np.sin(turn_rad)
        poses = np.stack([dx_m + cos * x - sin * y, dy_m + sin * x + cos * y, yaw + turn_rad], axis=1)
        return SyntheticDrive(self.stamps_ns, poses, self.speeds_mps)


def drive_course(
    course: Sequence[tuple[float, float]] = COURSE, speed_mps: float | Callable[[float], float] = 5.0
) -> SyntheticDrive:
    """Drive a course given as (length_m, curvature_1pm) pieces; the speed may depend on time in seconds."""
    dt_s, ends = 0.04, np.cumsum([length for length, _ in course])
    s_m, t_s, pose = 0.0, 0.0, np.zeros(3)
    rows = []
    while s_m < ends[-1] and t_s < 300.0:
        speed = speed_mps(t_s) if callable(speed_mps) else speed_mps
        rows.append((t_s, *pose, speed))
        kappa = course[int(np.searchsorted(ends, s_m, side="right"))][1]
        middle = pose[2] + kappa * speed * dt_s / 2.0
        pose = pose + speed * dt_s * np.array([np.cos(middle), np.sin(middle), kappa])
        s_m, t_s = s_m + abs(speed) * dt_s, t_s + dt_s
    table = np.array(rows)
    stamps = START_NS + np.round(table[:, 0] * 1e9).astype(np.int64)
    return SyntheticDrive(stamps, table[:, 1:4], table[:, 4])


def picture(number: int) -> np.ndarray:
    """A tiny frame that tells its number."""
    return np.full((24, 32, 3), (number * 7) % 256, np.uint8)


def jpeg(number: int) -> bytes:
    """The same as JPEG."""
    return cv2.imencode(".jpg", picture(number))[1].tobytes()


def picture_of(drive: SyntheticDrive, number: int) -> bytes:
    """A tiny JPEG of a drive: another drive has no picture that is the same, or looks the same at the same number."""
    mark = zlib.crc32(drive.stamps_ns.tobytes() + drive.poses.tobytes())
    data, comment = jpeg(number + mark % 256), f"{mark} {number}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def _header(stamp_ns: int, frame_id: str) -> Any:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=int(stamp_ns // SECOND), nanosec=int(stamp_ns % SECOND))
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def odometry_cdr(stamp_ns: int, pose: Sequence[float], speed_mps: float) -> bytes:
    types = typestore().types
    vector, yaw = types["geometry_msgs/msg/Vector3"], float(pose[2])
    message = types[ODOMETRY.type](
        header=_header(stamp_ns, "map"),
        child_frame_id="base_link",
        pose=types["geometry_msgs/msg/PoseWithCovariance"](
            pose=types["geometry_msgs/msg/Pose"](
                position=types["geometry_msgs/msg/Point"](x=float(pose[0]), y=float(pose[1]), z=6.5),
                orientation=types["geometry_msgs/msg/Quaternion"](
                    x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))
                ),
            ),
            covariance=np.zeros(36),
        ),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](
            twist=types["geometry_msgs/msg/Twist"](
                linear=vector(x=float(speed_mps), y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=0.0)
            ),
            covariance=np.zeros(36),
        ),
    )
    return bytes(typestore().serialize_cdr(message, ODOMETRY.type))


def velocity_cdr(stamp_ns: int, speed_mps: float) -> bytes:
    report = typestore().types[VELOCITY_STATUS.type](
        header=_header(stamp_ns, "base_link"),
        longitudinal_velocity=float(speed_mps),
        lateral_velocity=0.0,
        heading_rate=0.0,
    )
    return bytes(typestore().serialize_cdr(report, VELOCITY_STATUS.type))


def compressed_cdr(stamp_ns: int, data: bytes) -> bytes:
    message = typestore().types[CAMERA_JPEG.type](
        header=_header(stamp_ns, "camera"), format="bgr8; jpeg compressed bgr8", data=np.frombuffer(data, np.uint8)
    )
    return bytes(typestore().serialize_cdr(message, CAMERA_JPEG.type))


def image_cdr(stamp_ns: int, image: np.ndarray, encoding: str = "bgr8") -> bytes:
    message = typestore().types[CAMERA_IMAGE.type](
        header=_header(stamp_ns, "camera"),
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=image.shape[1] * image.shape[2],
        data=np.ascontiguousarray(image).reshape(-1),
    )
    return bytes(typestore().serialize_cdr(message, CAMERA_IMAGE.type))


def status_cdr(lap: int) -> bytes:
    types = typestore().types
    layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    data = np.array([600.0, lap, 1.0, 0.0, 1.0, 5.0, 0.0], np.float32)
    return bytes(typestore().serialize_cdr(types[AWSIM_STATUS.type](layout=layout, data=data), AWSIM_STATUS.type))


def camera_stamps(drive: SyntheticDrive, period_ns: int = 105_000_000) -> np.ndarray:
    """Camera stamps at the simulator's 9.52 Hz, a little off the odometry's."""
    return np.arange(drive.stamps_ns[0] + 3_000_000, drive.stamps_ns[-1], period_ns, dtype=np.int64)


def write_bag(
    folder: Path,
    drive: SyntheticDrive,
    *,
    frames: Sequence[tuple[int, bytes]] | None = None,
    topics: Sequence[Topic] = (CAMERA_JPEG, ODOMETRY, VELOCITY_STATUS, AWSIM_STATUS),
    lap_at: Callable[[float], int] | None = None,
    extra: Sequence[tuple[str, int, bytes]] = (),
) -> Path:
    """Write a drive as a bag; frames are (stamp, serialised message) of the camera topic, arrival 2 ms after stamp.

    Only what is in ``topics`` is written; ``extra`` adds (topic, arrival, message).
    """
    if frames is None:
        frames = [(int(ns), compressed_cdr(int(ns), picture_of(drive, n))) for n, ns in enumerate(camera_stamps(drive))]
    writer = BagWriter(folder, topics)
    names = {topic.name for topic in topics}
    camera = next((topic.name for topic in topics if topic.type.endswith("Image")), "")
    messages = [(camera, ns + 2_000_000, data) for ns, data in frames]
    rows = zip(drive.stamps_ns.tolist(), drive.poses, drive.speeds_mps, strict=True)
    for number, (ns, pose, speed) in enumerate(rows):
        messages.append((ODOMETRY.name, ns + 1_000_000, odometry_cdr(ns, pose, speed)))
        messages.append((VELOCITY_STATUS.name, ns + 1_100_000, velocity_cdr(ns, speed)))
        if number % 5 == 0:
            lap = lap_at((ns - START_NS) / 1e9) if lap_at else 1
            messages.append((AWSIM_STATUS.name, ns + 1_200_000, status_cdr(lap)))
    for name, received_ns, data in sorted([*messages, *extra], key=lambda message: message[1]):
        if name in names:
            writer.write(name, received_ns, data)
    writer.close()
    return folder
