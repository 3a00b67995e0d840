"""The driver on ``/diagnostics``: what Autoware's and ROS's monitors show, once a second and whenever it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rclpy.node import Node

from closed_loop.control.diagnosis import Finding
from collector.ros.conversions import set_stamp
from collector.ros.message_packages import message_class
from collector.ros.topics import DIAGNOSTICS, qos_profile

EVERY_S = 1.0
# Of diagnostic_msgs/DiagnosticStatus, whose constants are bytes.
_LEVELS = {"ok": b"\x00", "warn": b"\x01", "error": b"\x02", "stale": b"\x03"}
_HARDWARE = "alpamayo_mono"


class Diagnostics:
    """Publishes findings at their rate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._array = message_class(DIAGNOSTICS.type)
        self._status, self._value = (
            message_class(f"diagnostic_msgs/msg/{n}") for n in ("DiagnosticStatus", "KeyValue")
        )
        self._publisher = node.create_publisher(self._array, DIAGNOSTICS.name, qos_profile(DIAGNOSTICS))
        self._said_s, self._said = -math.inf, ""

    def is_due(self, reason: str, steady_s: float) -> bool:
        """Whether to publish now: another reason than last time, or a second later."""
        if reason == self._said and steady_s - self._said_s < EVERY_S:
            return False
        self._said, self._said_s = reason, steady_s
        return True

    def publish(self, findings: Sequence[Finding]) -> None:
        """One message with all of them."""
        message = self._array()
        set_stamp(message.header.stamp, self._node.get_clock().now().nanoseconds)
        for finding in findings:
            status = self._status()
            status.name = f"{self._node.get_name()}: {finding.name}"
            status.hardware_id, status.message, status.level = _HARDWARE, finding.message, _LEVELS[finding.level]
            status.values = [self._value(key=key, value=value) for key, value in finding.values.items()]
            message.status.append(status)
        self._publisher.publish(message)
