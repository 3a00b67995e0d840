"""How to train, as plain data: each setting and its default stand here once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from collector.common.arguments import MOST_SEED, Arguments, argument
from collector.common.errors import MonoError

# Fewer steps take less time than compiling saves.
STEPS_WORTH_COMPILING = 100


@dataclass(frozen=True)
class LoopSettings(Arguments):
    """How to train."""

    steps: int = argument(300, "optimiser steps", 1, 10_000_000)
    batch_size: int = argument(16, "samples per step, of all processes together", 1, 65_536)
    rows_per_pass: int = argument(
        0,
        "samples per forward pass of one process; 0 takes its whole share of the batch at once. Less memory "
        "for more time, and the same step",
        0,
        65_536,
    )
    learning_rate: float = argument(
        1e-4,
        "peak of a cosine schedule with linear warm-up, decaying to a hundredth. 1e-4 suits LoRA on the 10B "
        "weights, 2e-3 on the tiny model; full training wants a tenth of it",
        1e-09,
        1.0,
    )
    warmup_steps: int = argument(20, "linear warm-up", 0, 10_000_000)
    weight_decay: float = argument(0.0, "of AdamW", 0.0, 1.0)
    text_weight: float = argument(1.0, "weight of the chain-of-causation cross-entropy", 0.0, 1000.0)
    flow_weight: float = argument(1.0, "weight of the flow-matching loss", 0.0, 1000.0)
    xy_weight: float = argument(
        0.0,
        "weight of the mean squared xy error, in square metres, of the path decoded from a one-step estimate",
        0.0,
        1000.0,
    )
    # let the expert's losses reach the language model through the keys and values it reads.
    expert_gradient: bool = True
    horizon_s: float = argument(
        0.0,
        "let the flow loss fade along the path with this time constant; 0 weighs all 6.4 s alike, as released",
        0.0,
        1000.0,
    )
    noise_draws: int = argument(
        2, "flow noises per sample and step; the prefix is the expensive part, so several draws are cheap", 1, 1024
    )
    texts_per_frame: int = argument(
        1,
        "texts of a pair that are trained side by side behind one reading of their picture, where a dataset has pairs; "
        "samples for less time, and batches in which the text decides",
        1,
        64,
    )
    contrast_weight: float = argument(
        0.0,
        "weight of the contrast: under the text of another future of its frame, in the same pass, a path must be "
        "predicted worse than under its own; for datasets with pairs, with --texts_per_frame above 1",
        0.0,
        1000.0,
    )
    contrast_margin: float = argument(
        1.0,
        "by how much worse, as flow loss; where the two futures differ by less than that, by as much as they do",
        0.0,
        1000.0,
    )
    reasoning_dropout: float = argument(
        0.1, "share of samples trained without their reasoning, so that the path also follows the image", 0.0, 1.0
    )
    wish_dropout: float = argument(
        0.0,
        "share of samples driven at a pace or to a stop that somebody asked for that train without that wish, and "
        "without learning their text: what is left of it in plain words (slow down) has to say how the path goes",
        0.0,
        1.0,
    )
    gradient_clip: float = argument(1.0, "largest gradient norm", 1e-06, 1000000.0)
    validate_every: int = argument(50, "steps between validation losses", 1, 10_000_000)
    # compile the layers, on a card and for at least 100 steps: about a minute first, and then two to four times the
    # speed of a card that waits for launches.
    compile: bool = True
    recompute_layers: int = argument(
        -1,
        "layers of each half that are computed again in the backward pass instead of remembered: less memory for more "
        "time, and the same numbers. -1 means as many as the card's memory asks for, and none on a CPU",
        -1,
        1000,
    )
    checkpoint_every: int = argument(50, "steps between checkpoints, from which a killed run goes on", 1, 10_000_000)
    seed: int = argument(0, "of everything drawn", 0, MOST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.text_weight + self.flow_weight + self.xy_weight > 0.0:
            raise MonoError(
                "text_weight, flow_weight and xy_weight are all 0", "a loss to train on", "leave one above 0"
            )
        if self.contrast_weight > 0.0 and self.texts_per_frame == 1:
            found = f"contrast_weight {self.contrast_weight:g} with one text per frame"
            raise MonoError(found, "two texts of a frame to hold against each other", "add --texts_per_frame 4")
        if self.contrast_weight > 0.0 and not self.contrast_margin:
            found = f"contrast_weight {self.contrast_weight:g} with a margin of 0, under which nothing is ever too near"
            raise MonoError(found, "a margin above 0", "leave --contrast_margin out, or --contrast_weight")
        if self.contrast_weight > 0.0 and 0 < self.rows_per_pass < self.texts_per_frame:
            found = f"rows_per_pass {self.rows_per_pass} with {self.texts_per_frame} texts per frame and a contrast"
            expected = "the texts of a frame in one pass, where they are held against each other"
            raise MonoError(found, expected, f"--rows_per_pass {self.texts_per_frame} or more, or fewer texts")


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then cosine down to a hundredth of the peak."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.01 + 0.495 * (1.0 + math.cos(math.pi * min(1.0, progress)))
