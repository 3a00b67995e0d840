"""What names no policy is a sentence, whatever Python thinks of it."""

from __future__ import annotations

import pytest

from closed_loop.serving.loading import build_policy
from collector.common.errors import MonoError
from finetune.policy import Observation, Plan

OPTIONS = {"model_folder": "", "device": "cpu"}


class Failing:
    def __init__(self, **_options: object) -> None:
        self.seconds = 1 + None  # type: ignore[operator]  # what an author overlooked

    def plan(self, observation: Observation) -> Plan:
        raise NotImplementedError


@pytest.mark.parametrize(
    "target", ["os:getcwd", "builtins:str", "builtins:print", "finetune.policy:Plan", "finetune.policy:FUTURE_STEPS"]
)
def test_what_is_no_policy(target: str) -> None:
    with pytest.raises(MonoError, match=f"{target}.*finetune.policy.Policy"):
        build_policy(target, OPTIONS)


def test_the_cure_for_a_module_of_a_team_is_not_to_install_ours() -> None:
    with pytest.raises(MonoError, match=r"no_such_driver.*correct the name"):
        build_policy("no_such_driver:Driver", OPTIONS)


def test_a_fault_inside_a_policy_stays_its_own() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        build_policy(f"{__name__}:Failing", OPTIONS)
