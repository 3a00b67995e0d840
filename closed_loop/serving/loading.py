"""A policy by its name, module:Class: one of ours, or a team's own from its working folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from closed_loop.serving.settings import DEFAULT_POLICY
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
        ours = "install alpamayo_mono with its extra [model] there, or name another policy_python"
        theirs = "correct the name, install the module there, or add its folder to PYTHONPATH"
        raise MonoError(found, "'module:Class'", ours if target == DEFAULT_POLICY else theirs) from error
    if isinstance(factory, type) and not callable(getattr(factory, "plan", None)):
        raise MonoError(f"{target!r} has no method plan", "a class like finetune.policy.Policy", "add plan()")
    try:
        policy: Policy = factory(**options)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # its own code failed: that is its author's to read
        found = f"the policy {target!r} cannot be made with {', '.join(options)} ({error})"
        do = "take these keyword arguments, as finetune.alpamayo_policy.AlpamayoPolicy does"
        raise MonoError(found, "a class like finetune.policy.Policy", do) from error
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
