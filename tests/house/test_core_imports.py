"""The core runs where torch, ROS or the model libraries are missing.

Every module of the three packages is found by walking them, so a new one counts as core until it is listed here.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json

import pytest

from tests.helpers.refused_imports import import_all

TORCH = ("torch", "transformers", "peft", "accelerate", "safetensors", "tensorboard", "bitsandbytes")
ROS = ("rclpy", "launch", "launch_ros")
# Modules whose very purpose needs the libraries.
TORCH_LEAVES = (
    "finetune.adapters.weights",
    "finetune.adapters.lora",
    "finetune.alpamayo.*",
    "finetune.alpamayo_policy",
    "finetune.checkpoint",
    "finetune.engine.*",
    "finetune.processing.processor",
    "finetune.training.batches",
    "finetune.training.encoding",
    "finetune.training.loss",
    "finetune.adapters.fused",
    "finetune.training.memory",
    "finetune.training.processes",
    "finetune.evaluation.inference",
    "finetune.studies.stages",
    "finetune.training.loop",
    "finetune.training.checkpoint",
)
# Triton comes with PyTorch where there is a GPU to use it on.
TRITON_LEAVES = ("finetune.engine.kernels", "finetune.engine.triton_operations")
ROS_LEAVES = (
    "collector.doctor.node",
    "collector.recording.node",
    "closed_loop.ros.drive_node",
    "closed_loop.ros.evaluator_node",
    "closed_loop.ros.inputs",
    "closed_loop.ros.orders",
    "closed_loop.ros.publishing",
    "closed_loop.simulator.node",
    "closed_loop.simulator.publishing",
)
# Plain numpy and the standard library, nothing else: what a controller on a small machine may use.
PURE = (
    "collector.reasoning.consistency",
    "collector.ros.parameters",
    "collector.reasoning.claims",
    "collector.reasoning.english",
    "collector.reasoning.japanese",
    "collector.geometry.curvature",
    "collector.doctor.checks",
    "collector.common.errors",
    "collector.geometry.pinhole",
    "collector.geometry.poses",
    "collector.reasoning.writing",
    "collector.ros.topics",
    "collector.ros.transport",
    "finetune.evaluation.bootstrap",
    "finetune.evaluation.metrics",
    "finetune.policy",
    "closed_loop.cli",
    "closed_loop.control.controller",
    "closed_loop.ros.config",
    "collector.common.arguments",
    "collector.geometry.constants",
    "closed_loop.control.safety_monitor",
)


def assert_only_leaves_fail(failed: dict[str, str], leaves: tuple[str, ...]) -> None:
    surprises = {name: why for name, why in failed.items() if not any(fnmatch.fnmatch(name, leaf) for leaf in leaves)}
    assert not surprises, "core modules need what they may not need:\n" + json.dumps(surprises, indent=1)
    stale = [leaf for leaf in leaves if not any(fnmatch.fnmatch(name, leaf) for name in failed)]
    assert not stale, f"listed as leaves, yet importable: {stale}"


def test_without_torch_and_ros() -> None:
    names, failed = import_all(TORCH + ROS)
    assert len(names) > 40, "the walk found too little to prove anything"
    assert_only_leaves_fail(failed, TORCH_LEAVES + ROS_LEAVES)


@pytest.mark.ros
def test_nodes_without_torch() -> None:
    _, failed = import_all(TORCH)
    assert_only_leaves_fail(failed, TORCH_LEAVES)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_model_without_ros() -> None:
    _, failed = import_all((*ROS, "triton"))
    assert_only_leaves_fail(failed, ROS_LEAVES + TRITON_LEAVES)


def test_pure_core_needs_numpy_only() -> None:
    names, failed = import_all(allowed=("numpy", "collector", "finetune", "closed_loop"), chosen=PURE)
    assert names == list(PURE)
    assert not failed


def test_the_test_can_fail() -> None:
    _, failed = import_all(refused=("numpy",), chosen=("collector.geometry.poses", "collector.common.errors"))
    assert list(failed) == ["collector.geometry.poses"]
