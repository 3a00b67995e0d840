"""How to train, as plain data: each setting and its default stand here once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from collector.common.errors import MonoError


@dataclass(frozen=True)
class LoopSettings:
    """How to train."""

    steps: int = 300  # optimiser steps.
    batch_size: int = 16  # samples per step, of all processes together.
    # samples per forward pass of one process; 0 takes its whole share of the batch at once. Less memory for more time,
    # and the same step.
    rows_per_pass: int = 0
    # peak of a cosine schedule with linear warm-up, decaying to a hundredth. 1e-4 suits LoRA on the 10B weights, 2e-3
    # on the tiny model; full training wants a tenth of it.
    learning_rate: float = 1e-4
    warmup_steps: int = 20  # linear warm-up.
    weight_decay: float = 0.0  # of AdamW.
    text_weight: float = 1.0  # weight of the chain-of-causation cross-entropy.
    flow_weight: float = 1.0  # weight of the flow-matching loss.
    # weight of the mean squared xy error, in square metres, of the path decoded from a one-step estimate.
    xy_weight: float = 0.0
    # let the expert's losses reach the language model through the keys and values it reads.
    expert_gradient: bool = True
    # let the flow loss fade along the path with this time constant; 0 weighs all 6.4 s alike, as released.
    horizon_s: float = 0.0
    # flow noises per sample and step; the prefix is the expensive part, so several draws are cheap.
    noise_draws: int = 2
    # share of samples trained without their reasoning, so that the path also follows the image.
    reasoning_dropout: float = 0.1
    gradient_clip: float = 1.0  # largest gradient norm.
    validate_every: int = 50  # steps between validation losses.
    # compile the layers first: about a minute for 1.6 times the speed of a card that waits for launches.
    compile: bool = False
    checkpoint_every: int = 50  # steps between checkpoints, from which a killed run goes on.
    seed: int = 0  # of everything drawn.

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "noise_draws", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise MonoError(f"--{name} {getattr(self, name)}", "at least 1", f"leave --{name} out for its default")


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then cosine down to a hundredth of the peak."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.01 + 0.495 * (1.0 + math.cos(math.pi * min(1.0, progress)))
