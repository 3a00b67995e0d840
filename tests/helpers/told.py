"""What the client of a policy server tells its owner, written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from closed_loop.serving.client import Answers, PlanReply
from finetune.policy import Observation


class Told:
    """What a client told, written down."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.plans: list[PlanReply] = []
        self.errors: list[str] = []
        self.deaths: list[str] = []
        self.log: list[str] = []
        self.answers = Answers(
            self.ready.append, self.plans.append, self.errors.append, self.deaths.append, self.log.append
        )


def until(variant: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not variant():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def observation(stamp_ns: int) -> Observation:
    return Observation(stamp_ns, {"front": np.zeros((1, 36, 64, 3), np.uint8)}, np.zeros((16, 3)), 2.5)
