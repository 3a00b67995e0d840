"""Others on a topic that one may speak on: told by what they say, not by a name that lingers."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from collector.ros.conversions import set_stamp
from collector.ros.graph import GUARD_NODE, ONE_CONTROLLER, Strangers, UnorderedClock, Watch
from collector.ros.message_packages import message_class
from collector.ros.topics import CONTROL_CMD, qos_profile


def clock(stamp_ns: int) -> Any:
    message = SimpleNamespace(clock=SimpleNamespace(sec=0, nanosec=0))
    set_stamp(message.clock, stamp_ns)
    return message


def test_two_clocks_are_told_from_one_that_was_started_anew() -> None:
    one = UnorderedClock()
    assert not any(one(clock(10_000_000 * n)) for n in [*range(1, 50), *range(1, 50), *range(1, 50)])
    for offset_ns in (0, 5_000_000, 3_000_000_000):
        two = UnorderedClock()
        stamps = [10_000_000 * n + offset_ns * (k % 2) for n in range(1, 20) for k in range(2)]
        assert any(two(clock(stamp)) for stamp in stamps) == (offset_ns != 5_000_000)  # those fit between each other


@pytest.mark.ros
def test_a_stranger_counts_while_it_speaks(ros_environment: dict[str, str]) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        executor = SingleThreadedExecutor(context=context)
        nodes = {name: rclpy.create_node(name, context=context) for name in ("driver", "teleop", GUARD_NODE)}
        for node in nodes.values():
            executor.add_node(node)
        kind = message_class(CONTROL_CMD.type)
        say = {
            name: node.create_publisher(kind, CONTROL_CMD.name, qos_profile(CONTROL_CMD))
            for name, node in nodes.items()
            if name != "teleop"
        }

        def ours(message: Any) -> bool:
            return bool(message.longitudinal.acceleration != 1.0)

        watch = Watch(nodes["driver"], ONE_CONTROLLER, lambda message: not ours(message), own=1)
        strangers = Strangers(nodes["driver"], watch)

        def seen(*speakers: str, seconds: float = 2.5) -> str:
            until_s, who = time.monotonic() + seconds, ""
            while time.monotonic() < until_s and not who:
                for name in speakers:
                    message = kind()
                    message.longitudinal.acceleration = 1.0 if name == "teleop" else -1.0
                    say[name].publish(message)
                executor.spin_once(timeout_sec=0.02)
                found = strangers.look(time.monotonic())
                who = found[1] if found else ""
            return who

        assert not seen("driver", GUARD_NODE) and not watch.is_suspicious
        say["teleop"] = nodes["teleop"].create_publisher(kind, CONTROL_CMD.name, qos_profile(CONTROL_CMD))
        assert not seen("driver"), "it is there, and says nothing"
        assert watch.is_suspicious
        assert seen("driver", "teleop") == "/teleop"
        time.sleep(1.1)
        assert not seen("driver"), "it has stopped"
        nodes["teleop"].destroy_publisher(say.pop("teleop"))
        assert not seen("driver") and not watch.is_suspicious
        executor.shutdown()
    finally:
        rclpy.shutdown(context=context)
