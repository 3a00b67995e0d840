"""A simulator's worth of topics from one process, stamped with wall time: what was sent, and when, is in its log.

    python -m tests.helpers.camera_publisher --ros-args -p hz:=30.0 \
        -p width:=1920 -p height:=1080 -p log:=sent.txt -p seconds:=60.0

Every log line is ``topic stamp_ns late_ms``: a message that was sent, and how far this process was behind its plan.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from collector.ros.conversions import fill_image, set_stamp
from collector.ros.message_packages import message_class
from collector.ros.session import Session, run_node
from collector.ros.topics import (
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    CONTROL_CMD,
    CONTROL_MODE,
    GEAR_STATUS,
    ODOMETRY,
    STEERING_STATUS,
    VELOCITY_STATUS,
    Topic,
    qos_profile,
)

STATE_TOPICS = (ODOMETRY, VELOCITY_STATUS, STEERING_STATUS, GEAR_STATUS, CONTROL_MODE, CONTROL_CMD, CLOCK)
PICTURES = 4


def pictures(width: int, height: int) -> list[np.ndarray]:
    """Views of a road's worth of detail (RGB): smooth ground with the noise of a sensor on it."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(PICTURES):
        small = rng.integers(0, 255, (18, 32, 3), dtype=np.uint8)
        noise = rng.normal(0.0, 3.0, (height, width, 3))
        large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        found.append(np.clip(large + noise, 0, 255).astype(np.uint8))
    return found


def run(session: Session) -> int:
    from rclpy.node import Node

    node = Node("camera_publisher")
    values = {
        name: node.declare_parameter(name, default).value
        for name, default in (("hz", 10.0), ("width", 640), ("height", 360), ("seconds", 0.0), ("log", "sent.txt"))
    }
    topics: tuple[Topic, ...] = (CAMERA_IMAGE, CAMERA_INFO, *STATE_TOPICS)
    publishers = {
        topic.name: node.create_publisher(message_class(topic.type), topic.name, qos_profile(topic)) for topic in topics
    }
    messages: dict[str, Any] = {topic.name: message_class(topic.type)() for topic in topics}
    views = pictures(values["width"], values["height"])
    deadline_s = time.monotonic() + 30.0
    while not publishers[CAMERA_IMAGE.name].get_subscription_count() and time.monotonic() < deadline_s:
        if session.stop.wait(0.05):
            return 0
    time.sleep(0.5)  # the other topics' subscriptions are found a moment later
    began_s = time.monotonic()
    plan = [(began_s, topic.name, 1.0 / (topic.rate_hz or 10.0)) for topic in STATE_TOPICS]
    plan.append((began_s, CAMERA_IMAGE.name, 1.0 / values["hz"]))
    heapq.heapify(plan)
    number = 0
    with Path(values["log"]).open("w", encoding="ascii", buffering=1) as log:
        while not session.stop.is_set() and not (values["seconds"] and plan[0][0] - began_s > values["seconds"]):
            due_s, name, period_s = heapq.heappop(plan)
            heapq.heappush(plan, (due_s + period_s, name, period_s))
            ahead_s = due_s - time.monotonic()
            if ahead_s > 0.0:
                time.sleep(ahead_s)
            stamp_ns = time.time_ns()
            for sent in (name, CAMERA_INFO.name) if name == CAMERA_IMAGE.name else (name,):
                message = messages[sent]
                holder = message.header if hasattr(message, "header") else message
                set_stamp(holder.clock if sent == CLOCK.name else holder.stamp, stamp_ns)
                if sent == CAMERA_IMAGE.name:
                    fill_image(message, views[number % PICTURES])
                    number += 1
                publishers[sent].publish(message)
                log.write(f"{sent} {stamp_ns} {max(0.0, -ahead_s) * 1e3:.1f}\n")
    print(f"{number} frames sent", flush=True)
    time.sleep(1.0)  # the last ones are still on their way
    node.destroy_node()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_node(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
