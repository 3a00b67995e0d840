"""Both families of Autoware's messages: which one is spoken, and the same command in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.bags.definitions import definition_of
from collector.bags.reader import open_bag, typestore
from collector.bags.writer import BagWriter
from collector.common.errors import MonoError
from collector.ros.families import (
    FAMILIES,
    Family,
    asked_or_installed,
    both_names,
    choose_family,
    family_on_graph,
    has_two_types,
)
from collector.ros.topics import ALL_TOPICS, CONTROL_CMD, ODOMETRY, VEHICLE_STATUS, VELOCITY_STATUS, qos_profile

AUTO, NEW = map(Family, FAMILIES)


def test_every_topic_of_autoware_has_both_types() -> None:
    for topic in ALL_TOPICS:
        is_autoware = topic.type.startswith("autoware")
        assert has_two_types(topic) == is_autoware
        assert AUTO.topic(topic) is topic and (NEW.topic(topic) is topic) != is_autoware
        other = NEW.topic(topic)
        assert other.name == topic.name and other.type in both_names(topic.type)
        assert not other.type.startswith("autoware_auto") and definition_of(other.type).text is not None
    assert len({NEW.topic(topic).type for topic in VEHICLE_STATUS}) == len(VEHICLE_STATUS)


@pytest.mark.parametrize("family", [AUTO, NEW], ids=FAMILIES)
def test_a_command_says_the_same_in_both(family: Family) -> None:
    """Made of rosbags' types, serialised and read back: fields that a family does not have would not survive."""
    types, name = typestore().types, family.topic(CONTROL_CMD).type

    def empty(of: str) -> Any:
        values: dict[str, Any] = {}
        for field, (_, kind) in typestore().fielddefs[of][1]:
            basic = {"float32": 0.0, "bool": False, "int32": 0, "uint32": 0}
            values[field] = basic[kind[0]] if isinstance(kind, tuple) else empty(kind)
        return types[of](**values)

    message = empty(name)
    family.fill_command(message, 5_000_000_007, 0.25, -1.5, 4.0)
    read = typestore().deserialize_cdr(typestore().serialize_cdr(message, name), name)
    assert (read.stamp.sec, read.lateral.stamp.nanosec, read.longitudinal.stamp.sec) == (5, 7, 5)
    assert (read.lateral.steering_tire_angle, read.longitudinal.acceleration) == (0.25, -1.5)
    assert getattr(read.longitudinal, "speed" if family is AUTO else "velocity") == 4.0
    assert getattr(read.longitudinal, "is_defined_acceleration", True)


def test_what_is_asked_for_is_spoken() -> None:
    assert [asked_or_installed(name).name for name in FAMILIES] == list(FAMILIES)
    assert asked_or_installed("detect").name in FAMILIES


@pytest.mark.parametrize("family", [AUTO, NEW], ids=FAMILIES)
def test_a_bag_of_either_family_is_read(family: Family, tmp_path: Path) -> None:
    topic = family.topic(VELOCITY_STATUS)
    types = typestore().types
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=3, nanosec=0), frame_id="")
    message = types[topic.type](header=header, longitudinal_velocity=2.5, lateral_velocity=0.0, heading_rate=0.0)
    writer = BagWriter(tmp_path / "bag", [topic])
    writer.write(topic.name, 1, typestore().serialize_cdr(message, topic.type))
    writer.close()
    with open_bag(tmp_path / "bag") as bag:
        [(_, read)] = bag.messages(topic.name)
    assert bag.topics[topic.name] == topic.type
    assert read is not None and np.isclose(read.longitudinal_velocity, 2.5)


@pytest.fixture
def nodes(ros_environment: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(context=context)
    made = [rclpy.create_node(name, context=context) for name in ("simulator", "listener")]
    yield made[0], made[1]
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.ros
@pytest.mark.parametrize("family", [AUTO, NEW], ids=FAMILIES)
def test_the_simulators_family_is_found(family: Family, nodes: tuple[Any, Any]) -> None:
    from collector.ros.message_packages import message_class

    simulator, listener = nodes
    assert family_on_graph(listener) is None
    topic = family.topic(VELOCITY_STATUS)
    simulator.create_publisher(message_class(topic.type), topic.name, qos_profile(topic))
    # What a node itself has counts for nothing.
    other = (AUTO if family is NEW else NEW).topic(CONTROL_CMD)
    listener.create_publisher(message_class(other.type), other.name, qos_profile(other))
    found = choose_family(listener, "detect", 20.0)
    assert found.name == family.name
    assert str(found) == f"messages: {family.name} (as simulator has it on {topic.name})"
    assert choose_family(listener, "autoware", 20.0) == Family("autoware", "as asked")


@pytest.mark.ros
def test_where_nobody_tells_what_is_installed_is_spoken(nodes: tuple[Any, Any]) -> None:
    from collector.ros.message_packages import message_class

    simulator, listener = nodes
    assert "nobody" in str(choose_family(listener, "detect", 0.2))
    simulator.create_publisher(message_class(ODOMETRY.type), ODOMETRY.name, qos_profile(ODOMETRY))
    # A bag that is played without vehicle status: not waited for to the end.
    assert choose_family(listener, "detect", 60.0).name == asked_or_installed("detect").name


@pytest.mark.ros
def test_a_command_of_each_family_can_be_sent(nodes: tuple[Any, Any]) -> None:
    from collector.ros.message_packages import message_class

    for family in (AUTO, NEW):
        message = message_class(family.topic(CONTROL_CMD).type)()
        family.fill_command(message, 5_000_000_007, 0.25, -1.5, 4.0)
        assert message.longitudinal.acceleration == -1.5
    with pytest.raises(MonoError, match="has no message Nothing"):
        message_class("autoware_vehicle_msgs/msg/Nothing")
