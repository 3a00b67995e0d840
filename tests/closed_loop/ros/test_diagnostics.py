"""The driver's state on /diagnostics: standard names and levels, a message a second and one at every change."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("diagnostic_msgs")
pytestmark = pytest.mark.ros

from closed_loop.control.safety_monitor import SafetyMonitor  # noqa: E402
from closed_loop.ros import diagnostics as module  # noqa: E402
from closed_loop.ros.diagnostics import Diagnostics, findings  # noqa: E402
from collector.common.errors import MonoError  # noqa: E402


class FakeNode:
    """What Diagnostics asks of a node; the messages are real."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.said: list[str] = []

    def get_name(self) -> str:
        return "alpamayo_drive"

    def get_clock(self) -> SimpleNamespace:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=12_500_000_000))

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(warning=self.said.append)

    def create_publisher(self, *_arguments: object) -> SimpleNamespace:
        return SimpleNamespace(publish=self.sent.append)


def monitor_in_trouble() -> SafetyMonitor:
    monitor = SafetyMonitor()
    monitor.odometry_arrived(9.9)
    monitor.frame_arrived(9.0)
    for contrast in (0.5, 0.7):
        monitor.frame_refused(f"black: contrast {contrast} of 255, at least 3")
    poses = np.zeros((64, 3))
    poses[:, 0] = 0.3 * np.arange(1, 65)
    assert monitor.plan_arrived(poses) == ""
    return monitor


def test_each_input_is_a_status_with_its_counts() -> None:
    node, monitor = FakeNode(), monitor_in_trouble()
    decision = monitor.check(10.0, 0.1)
    Diagnostics(node).publish(findings(monitor, decision, 10.0))  # type: ignore[arg-type]
    (message,) = node.sent
    assert message.header.stamp.sec == 12  # type: ignore[attr-defined]
    by_name = {status.name: status for status in message.status}  # type: ignore[attr-defined]
    names = [f"alpamayo_drive: {name}" for name in ("control", "camera frame", "odometry", "plan")]
    assert list(by_name) == names
    assert [by_name[name].level for name in names] == [b"\x02", b"\x02", b"\x00", b"\x00"]
    assert "camera picture unusable: black" in by_name[names[0]].message
    values = {pair.key: pair.value for pair in by_name[names[1]].values}
    assert values == {"good": "1", "refused, black: contrast": "2", "age, s": "1.000"}


def test_a_message_a_second_and_at_every_change() -> None:
    diagnostics = Diagnostics(FakeNode())  # type: ignore[arg-type]
    due = [diagnostics.is_due("" if step < 60 else "odometry stale", 0.025 * step) for step in range(100)]
    assert [step for step, now in enumerate(due) if now] == [0, 40, 60]


def test_without_the_messages_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise MonoError(f"{name} cannot be imported")

    monkeypatch.setattr(module, "message_class", absent)
    node, monitor = FakeNode(), monitor_in_trouble()
    diagnostics = Diagnostics(node)  # type: ignore[arg-type]
    assert not diagnostics.is_due("", 1.0) and len(node.said) == 1
    diagnostics.publish(findings(monitor, monitor.check(10.0, 0.1), 10.0))
    assert not node.sent
