"""Instructions over ROS: from the start and on the topic, told of in the log, the status and the diagnostics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from closed_loop.ros.config import DriveConfig  # noqa: E402
from closed_loop.ros.drive_node import DriveNode  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402
from collector.ros import topics  # noqa: E402
from collector.ros.message_packages import message_class  # noqa: E402
from tests.helpers.drive_nodes import driving_nodes, reports, told  # noqa: E402


@pytest.fixture
def make(tmp_path: Path, ros_environment: dict[str, str]) -> Iterator[Any]:
    with driving_nodes(tmp_path) as made:
        yield made


def say(node: DriveNode, text: str) -> None:
    node.instructions.on_instruction(message_class(topics.INSTRUCTION.type)(data=text))


def asked(node: DriveNode) -> str:
    return node.driver._instruction


def level(node: DriveNode) -> str:
    [finding] = node.instructions.findings(12.5)
    return finding.level


def notes(node: DriveNode) -> list[tuple[str, str]]:
    return [(event["what"], event["detail"]) for event in node._log._events if "instruction" in event["what"]]


def test_an_operator_is_heard_while_the_kart_drives(make: Any) -> None:
    node = make(instruction="keep left")
    assert topics.INSTRUCTION.name in {each.topic_name for each in node.subscriptions}
    assert asked(node) == "Keep to the left edge, as asked." and level(node) == "ok"
    say(node, "a bit slower please")
    assert asked(node) == "Drive slowly, as asked."
    say(node, "fly")  # changes nothing, and is said
    assert asked(node) == "Drive slowly, as asked." and level(node) == "warn"
    status = node.instructions.status(12.5)["instruction"]
    assert (status["came"], status["understood"], status["for_s"]) == (
        "a bit slower please",
        "Drive slowly, as asked.",
        12.5,
    )
    assert "'fly' is not understood" in status["refused"]
    say(node, "usual")
    assert asked(node) == "" and level(node) == "ok"
    assert "refused" not in node.instructions.status(12.5)["instruction"]
    assert [what for what, _ in notes(node)] == ["instruction", "instruction", "instruction refused", "instruction"]
    assert notes(node)[1][1] == "'a bit slower please', understood: Drive slowly, as asked."
    node.destroy_node()


def test_nobody_is_heard_where_none_was_given(make: Any) -> None:
    node = make()
    assert topics.INSTRUCTION.name not in {each.topic_name for each in node.subscriptions}
    assert node.instructions.status(1.0) == {} and node.instructions.findings(1.0) == []
    node.destroy_node()


def test_an_instruction_is_no_order_to_go(make: Any) -> None:
    node = make(instruction="usual")
    reports(node, 5)
    assert told(node, hold="the marshal says so") == [True]
    say(node, "faster")
    tick = node.driver.tick(0.0)
    assert tick.decision.reason == "held" and tick.command.accel_mps2 < 0.0
    node.destroy_node()


@pytest.mark.parametrize("takes", [True, False])
def test_a_policy_that_takes_none_is_refused_at_the_start(make: Any, takes: bool) -> None:
    node = make(instruction="usual")
    node._policy.takes_instructions = takes
    node._on_ready(0.1)
    assert ("takes none" in node.termination.failed) != takes
    node.destroy_node()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"instruction": "fly"}, "'fly' is not understood"),
        ({"instruction": "stop"}, "hold"),
        ({"instruction": "keep left", "reasoning": False}, "reasoning:=false"),
    ],
)
def test_it_is_refused_before_anything_starts(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(MonoError, match=why):
        DriveConfig(**settings)
    assert DriveConfig(instruction=" ").instruction == " "
