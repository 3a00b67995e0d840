"""A policy by its name, module:Class: one of ours, or a team's own from its working folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from collector.common.errors import MonoError
from finetune.policy import Policy


def build_policy(target: str, options: dict[str, Any]) -> Policy:
    """Make a policy from ``"module:Class"`` and its keyword arguments.

    Raises:
        MonoError: there is no such class, it refuses the options, or it cannot plan.
    """
    module_name, _, class_name = target.partition(":")
    try:
        factory = getattr(_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        found = f"the policy {target!r} cannot be imported in {sys.executable} ({error})"
        do = "install alpamayo_mono with its extra [gpu] there, or name another policy_python"
        raise MonoError(found, "'module:Class'", do) from error
    policy: Policy = factory(**options)
    if not callable(getattr(policy, "plan", None)):
        raise MonoError(f"{target!r} has no method plan", "a class like finetune.policy.Policy", "add plan()")
    return policy


def _module(name: str) -> ModuleType:
    """A module of what is installed, else of the working folder, where a team keeps its own driver."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
    sys.path.append(str(Path.cwd()))
    return importlib.import_module(name)
