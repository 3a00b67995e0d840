"""Driving nodes in this process, without a policy: what they hear is put into their callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rclpy.parameter import Parameter

from closed_loop.ros.drive_node import DriveNode
from collector.ros import topics
from collector.ros.conversions import set_stamp
from collector.ros.message_packages import message_class
from collector.ros.session import ros_session


class Idle:
    """In the policy process's place: is never ready."""

    pid, name = 0, "nobody"

    def __init__(self, *_arguments: object) -> None: ...


@contextmanager
def driving_nodes(folder: Path) -> Iterator[Callable[..., DriveNode]]:
    """A maker of nodes, whose drives lie in a folder; their sessions end with it."""
    contexts: list[Any] = []

    def made(**values: object) -> DriveNode:
        given = {
            "out": folder / f"drive{len(contexts)}",
            "policy": "none:None",
            "use_sim_time": "true",
            "messages": "autoware_auto",
            **values,
        }
        words = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        contexts.append(ros_session(["--ros-args", *words]))
        session = contexts[-1].__enter__()
        return DriveNode(session, lambda: 0.0, Idle)

    yield made
    for context in contexts:
        context.__exit__(None, None, None)


def reports(node: DriveNode, count: int, speed_mps: float = 3.0) -> None:
    for step in range(count):
        velocity = message_class(topics.VELOCITY_STATUS.type)()
        steering = message_class(topics.STEERING_STATUS.type)()
        set_stamp(velocity.header.stamp, (step + 1) * 33_000_000)
        set_stamp(steering.stamp, (step + 1) * 33_000_000)
        velocity.longitudinal_velocity, velocity.heading_rate = speed_mps, math.nan
        node.inputs.on_velocity(velocity)
        node.inputs.on_steering(steering)


def told(node: DriveNode, **orders: object) -> list[bool]:
    given = [Parameter(name, value=value) for name, value in orders.items()]
    return [each.successful for each in node.set_parameters(given)]
