"""The baseline of ``benchmark_recorder.py``: what one writes first, rclpy subscriptions and rosbags in one callback.

Raw images as they come, no threads, no compression; ends at SIGINT.

    python -m plain_recorder --ros-args -p out:=FOLDER
"""

from __future__ import annotations

import sys
import time
from typing import Any

from collector.bags.reader import typestore
from collector.ros.message_packages import message_class
from collector.ros.session import Session, run_node
from collector.ros.topics import CAMERA_IMAGE, CAMERA_JPEG, RECORDED, qos_profile


def run(session: Session) -> int:
    """Record everything the project's recorder records, until told to stop."""
    from rclpy.node import Node
    from rosbags.rosbag2 import StoragePlugin, Writer

    node = Node("plain_recorder")
    out = node.declare_parameter("out", "").value
    with Writer(out, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in (CAMERA_IMAGE, *(topic for topic in RECORDED if topic is not CAMERA_JPEG)):
            connection = writer.add_connection(topic.name, topic.type, typestore=typestore())

            def take(data: bytes, connection: Any = connection) -> None:
                writer.write(connection, time.time_ns(), data)

            node.create_subscription(message_class(topic.type), topic.name, take, qos_profile(topic, 20), raw=True)
        session.spin(node)
    node.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(run_node(run))
