"""What all tests share: ROS tests are skipped without ROS and never hear each other."""

from __future__ import annotations

import importlib.util
import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("rclpy") is not None:
        return
    skip = pytest.mark.skip(reason="rclpy is not importable: source a ROS 2 or install the extra [ros]")
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(skip)


@pytest.fixture
def ros_environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment for ROS processes of one test: a domain of its own on this machine only.

    It is also set in the test's own process, for tests that run a node there.
    """
    variables = {
        # 1 to 101 are safe on Linux; the process id keeps two test runs on one machine apart.
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 101),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)
