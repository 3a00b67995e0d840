"""Messages to hand to a recorder."""

from __future__ import annotations

import cv2
import numpy as np

from collector.bags.reader import typestore
from collector.geometry.constants import NS_PER_S as SECOND
from collector.ros.topics import VELOCITY_STATUS


def velocity_cdr(stamp_ns: int, speed: float) -> bytes:
    store = typestore()
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="base_link")
    report = types[VELOCITY_STATUS.type](
        header=header, longitudinal_velocity=speed, lateral_velocity=0.0, heading_rate=0.0
    )
    return bytes(store.serialize_cdr(report, VELOCITY_STATUS.type))


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
