"""Between ROS messages and plain data: stamps, poses, images.

Duck-typed: a message is anything with the right attributes (rclpy's classes, or those rosbags makes from a bag), so
nothing of ROS is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import quaternion_yaw
from collector.ros.images import as_bgr, image_rows
from collector.ros.topics import Message

# The colours of encodings that need no conversion, in RGB's order.
_RED_FIRST = {"rgb8": slice(0, 3), "rgba8": slice(0, 3), "bgr8": slice(2, None, -1), "bgra8": slice(2, None, -1)}


def stamp_ns_of(stamp: Message) -> int:
    """Nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def set_stamp(stamp: Message, stamp_ns: int) -> None:
    """Write nanoseconds into a ``builtin_interfaces/Time``."""
    stamp.sec, stamp.nanosec = divmod(int(stamp_ns), NS_PER_S)


def yaw_of(orientation: Message) -> float:
    """Yaw of a quaternion message, radians (rotation about z; roll and pitch are ignored); NaN for all zeros."""
    return quaternion_yaw(orientation.x, orientation.y, orientation.z, orientation.w)


def set_pose(pose: Message, pose_map: Sequence[float] | NDArray[np.float64]) -> None:
    """Write (x, y, yaw) into a ``geometry_msgs/Pose``, z = 0."""
    pose.position.x, pose.position.y, pose.position.z = float(pose_map[0]), float(pose_map[1]), 0.0
    pose.orientation.x = pose.orientation.y = 0.0
    pose.orientation.z, pose.orientation.w = math.sin(pose_map[2] / 2.0), math.cos(pose_map[2] / 2.0)


def odometry_of(message: Message) -> tuple[int, tuple[float, float, float], float]:
    """(stamp_ns, (x, y, yaw) in the map, forward speed m/s) of a ``nav_msgs/Odometry``."""
    pose = message.pose.pose
    pose_map = pose.position.x, pose.position.y, yaw_of(pose.orientation)
    return stamp_ns_of(message.header.stamp), pose_map, message.twist.twist.linear.x


def rgb_of(message: Message) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB copy of a ``sensor_msgs/Image``.

    Raises:
        FrameError: an encoding this project does not read, or fewer bytes than the header promises.
    """
    found = message.encoding, message.step, message.data, bool(message.is_bigendian)
    pixels = image_rows(message.height, message.width, *found)
    if message.encoding not in _RED_FIRST:
        image = as_bgr(pixels, message.encoding)
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else np.array(image[..., ::-1], order="C")
    # A copy in any case: the message's memory belongs to the middleware.
    return np.array(pixels[..., _RED_FIRST[message.encoding]], np.uint8, order="C")


def fill_image(message: Message, image_rgb: NDArray[np.uint8]) -> None:
    """Write an RGB image into a ``sensor_msgs/Image`` as bgr8, as AWSIM sends it (needs OpenCV)."""
    import cv2

    height, width = image_rgb.shape[:2]
    message.height, message.width, message.step = height, width, 3 * width
    message.encoding, message.is_bigendian = "bgr8", 0
    # An array filled from memory costs a millisecond; assigning an ndarray costs hundreds.
    del message.data[:]
    message.data.frombytes(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR).data.cast("B"))
