"""Real nodes in real processes, each test in a ROS domain of its own."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT


class Node:
    """A running node; what it prints goes to a file and is read from there."""

    def __init__(self, module: str, log: Path, environment: dict[str, str], parameters: dict[str, Any]) -> None:
        command = [sys.executable, "-u", "-m", module, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        self.module, self._log = module, log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = 20.0) -> re.Match[str]:
        """Wait until the output matches."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.output)
            if match:
                found.append(match)
            elif self.process.poll() is not None:
                raise AssertionError(f"{self.module} ended without saying {pattern!r}:\n{self.output}")
            return bool(match)

        until(look, timeout_s, lambda: f"{self.module} never said {pattern!r}:\n{self.output}")
        return found[0]

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = 20.0) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.module} did not end:\n{self.output}") from None


class Domain:
    """Starts nodes in one ROS domain, on this machine only, and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Up to 101 every port lies below Linux's ephemeral ones. Random, since test runs may overlap.
        self.id = random.SystemRandom().randint(20, 101)
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.id),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.nodes: list[Node] = []

    def start(self, module: str, **parameters: Any) -> Node:
        log = self.folder / f"{len(self.nodes)}-{module.rpartition('.')[2]}.log"
        self.nodes.append(Node(module, log, self.environment, parameters))
        return self.nodes[-1]

    def simulator(self, **parameters: Any) -> Node:
        return self.start("closed_loop.simulator.node", **parameters)

    def close(self) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()


def until(condition: Callable[[], Any], timeout_s: float, complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.05)
