"""Policies that break their contract, each in one way, and servers of them in this process."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from closed_loop.serving.metadata import metadata_of
from closed_loop.serving.server import PolicyServer
from closed_loop.serving.settings import PolicySpec
from collector.common.errors import MonoError
from finetune.policy import Observation, Plan

POSES = np.zeros((64, 3))


class Odd:
    """Answers as ``how`` says; from its second frame on soundly where ``once``."""

    def __init__(self, how: str = "sound", once: bool = True, **_options: object) -> None:
        self.how, self.once, self.planned = how, once, 0

    def plan(self, observation: Observation) -> Any:
        self.planned += 1
        if self.once and self.planned > 1:
            return Plan(observation.stamp_ns, POSES, "sound")
        return getattr(self, self.how)(observation.stamp_ns)

    def sound(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES, "sound")

    def none(self, _: int) -> None:
        return None

    def a_list(self, _: int) -> list[object]:
        return [POSES]

    def short(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES[:10])

    def objects(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, np.full((64, 3), None))

    def ragged(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, [[1, 2], [3]])

    def no_timings(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES, timings_ms={"all": "long"})

    def long_reasoning(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES, "a" * (1 << 28))

    def numbered_reasoning(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES, 7)

    def no_reasoning(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES, None)

    def lists(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, POSES.astype(np.float32).tolist())

    def not_finite(self, stamp_ns: int) -> Plan:
        return Plan(stamp_ns, np.full((64, 3), np.nan))

    def wrong_stamp(self, _: int) -> Plan:
        return Plan(0, POSES)

    def exits(self, _: int) -> None:
        raise SystemExit("enough")

    def interrupts(self, _: int) -> None:
        raise KeyboardInterrupt

    def closes_output(self, stamp_ns: int) -> Plan:
        os.close(1)
        sys.stdout.close()
        return Plan(stamp_ns, POSES)

    def prints(self, stamp_ns: int) -> Plan:
        print("x" * (1 << 20))
        os.write(1, b"\0\1\2" * 1000)
        return Plan(stamp_ns, POSES)

    def forks(self, stamp_ns: int) -> Plan:
        os.fork()
        return Plan(stamp_ns, POSES)

    def leaves_a_child(self, stamp_ns: int) -> Plan:
        if os.fork() == 0:
            time.sleep(100)
            os._exit(0)
        return Plan(stamp_ns, POSES)

    def hangs(self, _: int) -> None:
        time.sleep(100)

    def ends(self, _: int) -> None:
        os._exit(3)


class Hanging(Odd):
    """Never answers."""

    def __init__(self, **_options: object) -> None:
        super().__init__("hangs", once=False)


@contextmanager
def serving(make: Callable[[], Any], token: str = "", port: int = 0, **metadata: object) -> Iterator[PolicyServer]:
    """A server in this process, on a free port (its ``listener`` knows which) or a given one."""
    said = metadata_of(PolicySpec("tests:Policy", {"cameras": "mono"})) | metadata
    server = PolicyServer(socket.create_server(("127.0.0.1", port)), make, said, token, lambda _: None)
    server.port = server.listener.getsockname()[1]  # type: ignore[attr-defined]

    def run() -> None:
        with suppress(MonoError):
            server.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join(5.0)
