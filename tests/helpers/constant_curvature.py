"""A policy without a model, to exercise processes and pipes: drives an arc at constant speed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from finetune.policy import FUTURE_STEPS, STEP_S, Observation, Plan


class ConstantCurvature:
    """Plans an arc, after an optional delay, and fails on request. Takes and ignores the model's own options."""

    def __init__(
        self,
        model_folder: str = "",
        curvature_1pm: float = 0.0,
        speed_mps: float = 2.0,
        delay_s: float = 0.0,
        fail_at_stamp_ns: int = -1,
        adapter: str | None = None,
        cameras: str = "mono",
        flow_steps: int = 10,
        noise_temperature: float = 0.0,
        seed: int = 0,
        reasoning: bool = True,
        device: str = "cpu",
    ) -> None:
        self._curvature_1pm, self._speed_mps = curvature_1pm, speed_mps  # 0 drives straight on
        self._delay_s, self._fail_at_stamp_ns = delay_s, fail_at_stamp_ns

    def plan(self, observation: Observation) -> Plan:
        print("planning")  # as libraries do: must not reach the pipe
        if observation.stamp_ns == self._fail_at_stamp_ns:
            raise RuntimeError("an unlucky frame")
        time.sleep(self._delay_s)
        s_m = self._speed_mps * STEP_S * np.arange(1, FUTURE_STEPS + 1)
        bend = self._curvature_1pm or 1e-9
        poses = np.stack([np.sin(bend * s_m) / bend, (1 - np.cos(bend * s_m)) / bend, bend * s_m], axis=-1)
        return Plan(observation.stamp_ns, poses, "Hold the wheel still.", {"all": self._delay_s * 1e3})

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        return [self.plan(observation) for observation in observations]


class LeftCircle(ConstantCurvature):
    """Drives a left circle of 8 m radius at 2.5 m/s, and takes as long for a plan as a small model does."""

    def __init__(self, **options: object) -> None:
        super().__init__(curvature_1pm=1 / 8, speed_mps=2.5, delay_s=0.05)
