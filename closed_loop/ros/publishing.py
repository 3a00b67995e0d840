"""What the driver says: its commands, its plan and reasoning, and how it is; each from one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from rclpy.node import Node

from closed_loop.control.driver import PlacedPlan
from closed_loop.control.kart import Command
from collector.geometry.constants import STEP_NS
from collector.ros import topics
from collector.ros.conversions import set_pose, set_stamp
from collector.ros.families import Family
from collector.ros.message_packages import message_class

RosMessage: TypeAlias = Any  # rclpy's messages carry no types


class DrivePublishing:
    """The driver's publishers; methods may be called from several threads."""

    def __init__(self, node: Node, family: Family) -> None:
        spoken = (
            topics.CONTROL_CMD,
            topics.GEAR_CMD,
            topics.CONTROL_MODE_REQUEST,
            topics.PLANNED_PATH,
            topics.REASONING,
            topics.DRIVE_STATUS,
        )
        self._clock, self._family = node.get_clock(), family
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
        self._send(topics.CONTROL_CMD, message)

    def plan(self, placed: PlacedPlan) -> None:
        """The planned path in the map, each pose with the time it is meant for, and its reasoning."""
        stamp_ns = placed.plan.stamp_ns
        path = self._types[topics.PLANNED_PATH]()
        path.header.frame_id = topics.MAP_FRAME
        set_stamp(path.header.stamp, stamp_ns)
        for index, pose_map in enumerate(placed.poses_map, start=1):
            pose = self._pose_stamped()
            pose.header.frame_id = topics.MAP_FRAME
            set_stamp(pose.header.stamp, stamp_ns + index * STEP_NS)
            set_pose(pose.pose, pose_map)
            path.poses.append(pose)
        self._send(topics.PLANNED_PATH, path)
        self._send(topics.REASONING, self._types[topics.REASONING](data=placed.plan.reasoning))

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

    def _send(self, topic: topics.Topic, message: RosMessage) -> None:
        self._publishers[topic].publish(message)
