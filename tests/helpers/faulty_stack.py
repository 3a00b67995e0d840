"""A node that speaks the Challenge's interface with faults, for the doctor to find.

    python -m faulty_stack --ros-args -p faults:=interface

``interface``: the camera has another type, odometry another QoS, the session's state another durability, and the clock
stands still. ``content``: large frames on FastDDS's default transport, which loses some of them by itself, and three of
four that never arrive; poses that are not numbers, and a message cut short, as one of another definition looks.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import rclpy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions

from collector.ros.conversions import set_stamp
from collector.ros.message_packages import message_class
from collector.ros.topics import (
    AWSIM_STATE,
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    ODOMETRY,
    VELOCITY_STATUS,
    Topic,
    qos_profile,
)

FAULTS: dict[str, tuple[Topic, ...]] = {
    "interface": (
        replace(CAMERA_IMAGE, type="sensor_msgs/msg/CompressedImage"),
        replace(ODOMETRY, reliability="best_effort"),
        replace(AWSIM_STATE, durability="volatile"),
        CLOCK,
    ),
    "content": (CAMERA_IMAGE, CAMERA_INFO, ODOMETRY, CLOCK, VELOCITY_STATUS),
}


def main() -> None:
    """Publish everything at 20 Hz until killed."""
    # Not collector.ros.session: it would give the frames a transport that does not lose them.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("faulty")
    faults = node.declare_parameter("faults", "interface").value
    outputs = {
        topic.name: node.create_publisher(message_class(topic.type), topic.name, qos_profile(topic))
        for topic in FAULTS[faults]
    }
    messages = {topic.name: message_class(topic.type)() for topic in FAULTS[faults]}
    if faults == "content":
        image = messages[CAMERA_IMAGE.name]
        image.height, image.width, image.step, image.encoding = 1080, 1920, 5760, "bgr8"
        image.data.frombytes(bytes(1080 * 5760))
        messages[ODOMETRY.name].pose.pose.position.x = math.nan
        messages[VELOCITY_STATUS.name] = serialize_message(messages[VELOCITY_STATUS.name])[:9]
    print("publishing", flush=True)
    start_ns = time.monotonic_ns()
    for count in itertools.count():
        now_ns = time.monotonic_ns() - start_ns
        for name, message in messages.items():
            if name != CLOCK.name and hasattr(message, "header"):
                set_stamp(message.header.stamp, now_ns)
            elif name == CLOCK.name:
                set_stamp(message.clock, now_ns if faults == "content" else 1)
            # How many of the large frames the transport loses depends on the machine, so most are lost here.
            if name != CAMERA_IMAGE.name or faults != "content" or count % 4 == 0:
                outputs[name].publish(message)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
