"""What the driver says: its commands, its plan and reasoning, and how it is; each from one call."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.node import Node

from closed_loop.control.driver import Driver, PlacedPlan, Tick
from collector.geometry.constants import STEP_NS
from collector.ros import topics
from collector.ros.conversions import set_pose, set_stamp
from collector.ros.families import Family
from collector.ros.message_packages import message_class
from collector.ros.topics import Message
from collector.vehicle.kart import Command


class DrivePublishing:
    """The driver's publishers; methods may be called from several threads."""

    def __init__(self, node: Node, family: Family, frame_id: str = topics.MAP_FRAME) -> None:
        self._frame_id = frame_id  # of the poses that plans are placed by
        spoken = (
            topics.CONTROL_CMD,
            topics.GEAR_CMD,
            topics.CONTROL_MODE_REQUEST,
            topics.PLANNED_PATH,
            topics.REASONING,
            topics.DRIVE_STATUS,
        )
        self._clock, self._family = node.get_clock(), family
        self._said: deque[tuple[float, ...]] = deque(maxlen=200)  # of five seconds, appended to by one thread
        self._types = {topic: message_class(family.topic(topic).type) for topic in spoken}
        self._pose_stamped = message_class("geometry_msgs/msg/PoseStamped")
        self._publishers = {
            topic: node.create_publisher(self._types[topic], topic.name, topics.qos_profile(topic)) for topic in spoken
        }

    def command(self, command: Command, speed_mps: float) -> None:
        """Steering and acceleration; the speed is for information, the simulator ignores it."""
        message = self._types[topics.CONTROL_CMD]()
        now_ns = self._clock.now().nanoseconds
        self._family.fill_command(message, now_ns, command.steer_rad, command.accel_mps2, max(0.0, speed_mps))
        self._said.append(_numbers_of(message))
        self._send(topics.CONTROL_CMD, message)

    def is_ours(self, message: Message) -> bool:
        """Whether a command on the topic is one of the last that :meth:`command` published."""
        return _numbers_of(message) in self._said

    def plan(self, placed: PlacedPlan) -> None:
        """The planned path in the map, each pose with the time it is meant for, and its reasoning."""
        stamp_ns = placed.plan.stamp_ns
        path = self._types[topics.PLANNED_PATH]()
        path.header.frame_id = self._frame_id
        set_stamp(path.header.stamp, stamp_ns)
        for index, pose_map in enumerate(placed.poses_map, start=1):
            pose = self._pose_stamped()
            pose.header.frame_id = self._frame_id
            set_stamp(pose.header.stamp, stamp_ns + index * STEP_NS)
            set_pose(pose.pose, pose_map)
            path.poses.append(pose)
        self._send(topics.PLANNED_PATH, path)
        self._send(topics.REASONING, self._types[topics.REASONING](data=placed.plan.reasoning or ""))

    def status(self, fields: Mapping[str, Any]) -> None:
        """One JSON object."""
        self._send(topics.DRIVE_STATUS, self._types[topics.DRIVE_STATUS](data=json.dumps(fields)))

    def engage(self) -> None:
        """Ask for gear and autonomous mode, as the stack's orchestrator does."""
        gear = self._types[topics.GEAR_CMD]()
        set_stamp(gear.stamp, self._clock.now().nanoseconds)
        gear.command = topics.GEAR_DRIVE
        self._send(topics.GEAR_CMD, gear)
        self._send(topics.CONTROL_MODE_REQUEST, self._types[topics.CONTROL_MODE_REQUEST](data=True))

    def _send(self, topic: topics.Topic, message: Message) -> None:
        self._publishers[topic].publish(message)


def status_of(tick: Tick, driver: Driver, laps: float) -> dict[str, Any]:
    """What the driver says about itself at a tick."""
    return {
        "driving": tick.decision.drive,
        "reason": tick.decision.reason,
        "detail": tick.decision.detail,
        "plan_age_s": None if tick.plan_age_s is None else round(tick.plan_age_s, 3),
        "speed_mps": round(tick.speed_mps, 3),
        "laps": laps,
        "frames": driver.frames.received,
        "frames_lost": driver.frames.lost,
        "time_rate": round(driver.rate.value, 3),
    }


def _numbers_of(command: Message) -> tuple[float, ...]:
    """What tells one command from another, as it looks after its way through a message of single precision."""
    numbers = command.lateral.steering_tire_angle, command.longitudinal.acceleration
    angle, acceleration = np.array(numbers, np.float32).tolist()
    return command.stamp.sec, command.stamp.nanosec, angle, acceleration
