"""What all tests share: ROS tests are skipped without ROS and never hear each other; one thread of torch for each."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import collector  # noqa: F401 - before OpenCV, as in every command
from tests.helpers.ros_processes import Domain

# Before torch is imported. The models of the tests are so small that two threads wait for each other longer than they
# compute, and `make test` runs one worker per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_ASIDE = 10  # of 19: how nice a worker is to the one with the ROS tests


@cache
def has_mark(file: Path, mark: str) -> bool:
    return f"mark.{mark}" in file.read_text("utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files, whose tests share fixtures, and all files with ROS tests to one worker.

    Nodes keep time by the wall clock, and domains are drawn at random: two tests at once may be slow, or meet. They
    take longest and begin first, then the files with slow tests, lest one worker is left alone with them at the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ros" if has_mark(config.rootpath / file, "ros") else file

        def _assign_work_unit(self, node: Any) -> None:
            def place(scope: str) -> int:
                return 0 if scope == "ros" else 1 if has_mark(config.rootpath / scope, "slow") else 2

            self.workqueue.move_to_end(min(self.workqueue, key=place), last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Beside another worker's nodes, tests that keep no time step aside for them, from the first such test on."""
    if "PYTEST_XDIST_WORKER" in os.environ and not has_mark(item.path, "ros") and os.nice(0) < _ASIDE:
        os.nice(_ASIDE)


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


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """A ROS domain for the processes of one test, with the messages built."""
    from collector.ros.message_packages import message_class
    from collector.ros.topics import CONTROL_CMD

    message_class(CONTROL_CMD.type)  # a first build takes half a minute, which no node's patience is made for
    domain = Domain(tmp_path)
    yield domain
    domain.close()
