"""The two families of Autoware's messages, and which of them the others on the ROS graph speak.

The Challenge's stack uses ``autoware_auto_*``; newer ones call the same topics' types ``autoware_*``. The table of
topics names the former; here stands what the latter are called and where their fields differ.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from collector.ros import topics
from collector.ros.conversions import set_stamp
from collector.ros.topics import NO_NAME_YET, Message, Topic

if TYPE_CHECKING:
    from rclpy.node import Node

FAMILIES = ("autoware_auto", "autoware")
# Type of autoware_auto: the same in autoware.
_RENAMED = {
    "autoware_auto_control_msgs/msg/AckermannControlCommand": "autoware_control_msgs/msg/Control",
    **{
        f"autoware_auto_vehicle_msgs/msg/{name}": f"autoware_vehicle_msgs/msg/{name}"
        for name in ("ControlModeReport", "GearCommand", "GearReport", "SteeringReport", "VelocityReport")
    },
    "autoware_auto_planning_msgs/msg/Trajectory": "autoware_planning_msgs/msg/Trajectory",
}
# Fields of a command that only one family has, or calls otherwise: (part, speed, flags that say what is given).
_SPEED_FIELD = {"autoware_auto": "speed", "autoware": "velocity"}
_GIVEN_FIELDS = {"autoware_auto": (), "autoware": ("is_defined_acceleration",)}
_POLL_S = 0.05
# Somebody speaks, and of the topics with two types none has come up: on a busy machine too they are found by now.
_SETTLED_S = 5.0


@dataclass(frozen=True)
class Family:
    """One of :data:`FAMILIES`, and in words why it was chosen."""

    name: str
    why: str = ""

    def topic(self, topic: Topic) -> Topic:
        """The topic with its type of this family; itself where both have the same."""
        if self.name == FAMILIES[0] or topic.type not in _RENAMED:
            return topic
        return replace(topic, type=_RENAMED[topic.type])

    def fill_command(
        self, message: Message, stamp_ns: int, steer_rad: float, accel_mps2: float, speed_mps: float
    ) -> None:
        """Write a command: tyre angle, acceleration, and for information the speed."""
        for stamp in (message.stamp, message.lateral.stamp, message.longitudinal.stamp):
            set_stamp(stamp, stamp_ns)
        message.lateral.steering_tire_angle = float(steer_rad)
        message.longitudinal.acceleration = float(accel_mps2)
        setattr(message.longitudinal, _SPEED_FIELD[self.name], float(speed_mps))
        for field in _GIVEN_FIELDS[self.name]:
            setattr(message.longitudinal, field, True)

    def __str__(self) -> str:
        return f"messages: {self.name}" + (f" ({self.why})" if self.why else "")


def has_two_types(topic: Topic) -> bool:
    """Whether the families have different types for it."""
    return topic.type in _RENAMED


def both_names(type_name: str) -> tuple[str, ...]:
    """A type of the table of topics, and what it is called in the other family."""
    return tuple(dict.fromkeys([type_name, _RENAMED.get(type_name, type_name)]))


def asked_or_installed(asked: str) -> Family:
    """The family to speak where nobody is waited for: as asked, or as installed."""
    return Family(asked, "as asked") if asked in FAMILIES else installed_family()


def installed_family() -> Family:
    """The family whose packages this Python has: the Challenge's where it has both or none (ours are then built)."""
    for name in FAMILIES:
        if importlib.util.find_spec(f"{name}_vehicle_msgs") is not None:
            return Family(name, "as installed")
    return Family(FAMILIES[0], "as the Challenge has them")


def family_on_graph(node: Node) -> Family | None:
    """What the others speak, None where nobody has a topic whose type tells.

    The simulator's word counts first: the types in which it reports the vehicle, and takes commands.
    """
    found: dict[str, str] = {}
    for topic in (*topics.VEHICLE_STATUS, topics.CONTROL_CMD, topics.GEAR_CMD):
        publishers, subscribers = node.get_publishers_info_by_topic, node.get_subscriptions_info_by_topic
        for look in (publishers, subscribers) if topic in topics.VEHICLE_STATUS else (subscribers, publishers):
            for each in look(topic.name):
                for family, name in zip(FAMILIES, both_names(topic.type), strict=True):
                    if each.topic_type == name and each.node_name != node.get_name():
                        found.setdefault(family, f"as {_named(each.node_name)} has it on {topic.name}")
    for family, why in found.items():
        others = [f", while {other} is {said}" for other, said in found.items() if other != family]
        return Family(family, why + "".join(others))
    return None


def _named(node_name: str) -> str:
    # A topic may be found before the node it belongs to.
    return "somebody" if node_name == NO_NAME_YET else node_name


def choose_family(node: Node, asked: str, wait_s: float, is_ended: Callable[[], bool] = lambda: False) -> Family:
    """The family to speak: as ``asked``, or for ``"detect"`` as the others do, waiting so long for them."""
    if asked in FAMILIES:
        return asked_or_installed(asked)
    end_s = time.monotonic() + wait_s
    settled_s = None
    while (now_s := time.monotonic()) < end_s and not is_ended():
        if (found := family_on_graph(node)) is not None:
            return found
        if any(node.count_publishers(topic.name) for topic in (topics.CLOCK, topics.CAMERA_IMAGE, topics.ODOMETRY)):
            settled_s = settled_s or now_s + _SETTLED_S
            if now_s >= settled_s:
                break
        time.sleep(_POLL_S)
    found = installed_family()
    return replace(found, why=f"{found.why}; nobody on the graph has a topic that tells")
