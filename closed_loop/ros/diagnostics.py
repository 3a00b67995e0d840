"""The driver on ``/diagnostics``: what Autoware's and ROS's monitors show, once a second and whenever it changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from closed_loop.control.safety_monitor import Decision, Health, SafetyMonitor
from collector.common.errors import MonoError
from collector.ros.conversions import set_stamp
from collector.ros.message_packages import message_class
from collector.ros.topics import DIAGNOSTICS, qos_profile

if TYPE_CHECKING:
    from rclpy.node import Node

EVERY_S = 1.0
# Of diagnostic_msgs/DiagnosticStatus, whose constants are bytes.
_LEVELS = {"ok": b"\x00", "warn": b"\x01", "error": b"\x02", "stale": b"\x03"}
_HARDWARE = "alpamayo_mono"
Level = Literal["ok", "warn", "error", "stale"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; its fields are those of a ``diagnostic_msgs/DiagnosticStatus``."""

    name: str
    level: Level
    message: str
    values: Mapping[str, str]


def findings(monitor: SafetyMonitor, decision: Decision, steady_s: float) -> list[Finding]:
    """The decision, and each input on its own: a fault may hide another."""
    words = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
    level: Level = "ok" if decision.drive else "warn" if decision.patient else "error"
    brakes = {f"braked, {reason}": str(count) for reason, count in sorted(monitor.brakes.items())}
    found = [Finding("control", level, "driving" if decision.drive else f"braking: {words}", brakes)]
    limits = monitor.limits
    for health, limit_s in (
        (monitor.camera, limits.frame_age_s),
        (monitor.odometry, limits.odometry_age_s),
        (monitor.plans, None),
    ):
        found.append(_input(health, steady_s, limit_s))
    return found


def _input(health: Health, steady_s: float, limit_s: float | None) -> Finding:
    values = {"good": str(health.count)}
    values |= {f"refused, {what}": str(count) for what, count in sorted(health.refused.items())}
    if health.arrived_s is None and not health.count:
        return Finding(health.name, "error" if health.defect else "stale", health.defect or "none yet", values)
    if limit_s is not None and health.arrived_s is not None:
        age_s = steady_s - health.arrived_s
        values["age, s"] = f"{age_s:.3f}"
        if age_s > limit_s and not health.defect:
            return Finding(health.name, "stale", f"silent for {age_s:.2f} s", values)
    return Finding(health.name, "error" if health.defect else "ok", health.defect or "good", values)


class Diagnostics:
    """Publishes findings; where diagnostic_msgs is not installed it says so in a line, and publishes nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._said_s, self._said, self._publisher = -math.inf, "", None
        try:
            self._array = message_class(DIAGNOSTICS.type)
        except MonoError as error:
            node.get_logger().warning(f"nothing on {DIAGNOSTICS.name}: {error}")
            return
        self._status, self._value = (
            message_class(f"diagnostic_msgs/msg/{n}") for n in ("DiagnosticStatus", "KeyValue")
        )
        self._publisher = node.create_publisher(self._array, DIAGNOSTICS.name, qos_profile(DIAGNOSTICS))

    def is_due(self, reason: str, steady_s: float) -> bool:
        """Whether to publish now: another reason than last time, or a second later."""
        if self._publisher is None or (reason == self._said and steady_s - self._said_s < EVERY_S):
            return False
        self._said, self._said_s = reason, steady_s
        return True

    def publish(self, findings: Sequence[Finding]) -> None:
        """One message with all of them."""
        if self._publisher is None:
            return
        message = self._array()
        set_stamp(message.header.stamp, self._node.get_clock().now().nanoseconds)
        for finding in findings:
            status = self._status()
            status.name = f"{self._node.get_name()}: {finding.name}"
            status.hardware_id, status.message, status.level = _HARDWARE, finding.message, _LEVELS[finding.level]
            status.values = [self._value(key=key, value=value) for key, value in finding.values.items()]
            message.status.append(status)
        self._publisher.publish(message)
