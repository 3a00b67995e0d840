"""Data flows collector -> finetune -> closed_loop; imports run back along it and never forward."""

from __future__ import annotations

import ast

import pytest

from tests.helpers.paths import ROOT

# What each package may not import: everything downstream of it.
FORBIDDEN = {"collector": {"finetune", "closed_loop"}, "finetune": {"closed_loop"}, "closed_loop": set()}


def imported_packages(source: str) -> set[str]:
    """Top-level packages imported anywhere in a module, function bodies included; "." for a relative import."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
        elif (
            isinstance(node, ast.Call)
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
        ):
            found.add(node.args[0].value.partition(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_import_runs_downstream(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {}
    for module in modules:
        imported = imported_packages(module.read_text(encoding="utf-8"))
        # Relative imports would hide the direction from a reader (and from this test).
        bad = imported & (FORBIDDEN[package] | {".", "tests"})
        if bad:
            wrong[str(module.relative_to(ROOT))] = sorted(bad)
    assert not wrong


def test_every_way_of_importing_is_seen() -> None:
    source = """
import collector.geometry.poses
def late():
    from finetune.policy import Plan
    import importlib
    return importlib.import_module("closed_loop.cli"), __import__("tests")
from . import sibling
"""
    assert imported_packages(source) == {"collector", "finetune", "importlib", "closed_loop", "tests", "."}
