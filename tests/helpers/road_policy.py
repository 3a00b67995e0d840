"""The policy of the fault campaign: plans along the road from the mark in the picture, and errs while a file says so.

Its settings come from the environment, since a policy's options are the model's: ``ROAD_COURSE``, ``ROAD_FAULT`` (a
name of :data:`tests.helpers.driver_faults.FAULTS`), ``ROAD_SWITCH`` (the file that exists while the fault is on).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from closed_loop.course.design import course_named
from finetune.policy import Observation, Plan
from tests.helpers.driver_faults import FAULTS, Answer, Injected
from tests.helpers.road_driver import RoadPlanner

LATENCY_S = 0.1


class RoadPolicy:
    """Takes and ignores the model's options."""

    def __init__(self, **_options: object) -> None:
        self._planner = RoadPlanner(course_named(os.environ["ROAD_COURSE"]))
        name = os.environ.get("ROAD_FAULT", "")
        self._injected = next((Injected(fault) for fault in FAULTS if fault.name == name), None)
        self._switch = Path(os.environ["ROAD_SWITCH"])

    def plan(self, observation: Observation) -> Plan:
        began_s = time.monotonic()
        poses = self._planner.plan(observation.frames["front"][-1], observation.speed_mps or 0.0)
        answer = Answer(poses)
        if self._injected is not None:
            (answer,) = self._injected.passed("plan", 0.0 if self._switch.exists() else None, answer)
        if answer.what == "die":
            os._exit(9)
        if answer.what == "error":
            raise RuntimeError("out of memory")
        while answer.what == "hang":
            time.sleep(1.0)
        time.sleep(max(0.0, LATENCY_S + answer.late_s - (time.monotonic() - began_s)))
        return Plan(observation.stamp_ns, answer.poses, answer.reasoning)  # type: ignore[arg-type]

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        return [self.plan(each) for each in observations]
