"""The joint loss and the training loop: text and trajectory together, logged apart.

The loop is accelerate's, so one process on a laptop and several on a GPU box run the same code. Every draw
(sample order, flow noise, thought dropout) comes from a generator seeded by seed and step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from collector.errors import MonoError, require
from finetune.alpamayo.flow_matching import horizon_weights, sample_times
from finetune.batches import Batch, Row, collate


@dataclass(frozen=True)
class LoopSettings:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch_size: rows per step and process.
        learning_rate: peak of a cosine schedule with linear warm-up, decaying to a hundredth.
        warmup_steps: length of the warm-up.
        weight_decay: of AdamW.
        text_weight, flow_weight: weights of the two losses in their sum.
        horizon_s: fading of the flow loss along the path, 0 for the released loss, which knows none.
        noise_draws: flow noises per prefix; the prefix is the expensive part, so several draws are cheap.
        thought_dropout: share of rows whose thought is skipped, so that the expert also reads the image.
        gradient_clip: largest gradient norm.
        validate_every: steps between validation losses.
        seed: of everything drawn.
    """

    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 1e-4
    warmup_steps: int = 20
    weight_decay: float = 0.0
    text_weight: float = 1.0
    flow_weight: float = 1.0
    horizon_s: float = 0.0
    noise_draws: int = 2
    thought_dropout: float = 0.1
    gradient_clip: float = 1.0
    validate_every: int = 50
    seed: int = 0


class JointLoss(nn.Module):
    """Text and flow loss of a batch, through one prefix pass.

    The flow term is the mean squared error of the predicted vector field in the normalised action space
    (acceleration and curvature over their standard deviations), the loss Alpamayo-R1's expert was trained
    with. It is not an xy error: curvature is integrated twice on the way to y, so an error early in the
    horizon moves every later waypoint, and ADE/FDE in metres are reported by the evaluation instead.
    """

    def __init__(self, model: Any, horizon_s: float = 0.0) -> None:
        super().__init__()
        self.model = model
        weights = horizon_weights(horizon_s)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: Batch, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean text loss over rows that speak, and mean flow loss over all rows.

        Args:
            batch: rows on the model's device.
            noise: (B, K, 64, 2) standard normal draws.
            times: (B, K) flow times in [0, 1).
        """
        vision = batch.vision
        if vision is None:
            vision = self.model.encode_images(batch.pixel_values, batch.grid_thw)
        prefix = self.model.run_prefix(batch.input_ids, batch.attention_mask, vision, batch.grid_thw)
        speaks = batch.label_mask.any(dim=1)
        text_rows = self.model.text_loss(prefix, batch.label_mask)
        # A silent row has no label: its text loss is no number and must not touch the mean.
        text = torch.where(speaks, text_rows, torch.zeros_like(text_rows)).sum() / speaks.sum().clamp(min=1)
        flow = self.model.flow_loss(prefix, batch.actions, noise, times, self.weights).mean()
        return text, flow


def draws(batch_size: int, settings: LoopSettings, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flow noise (B, K, 64, 2) and times (B, K) of a step, the same on every machine."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    noise = torch.randn(batch_size, settings.noise_draws, 64, 2, generator=generator)
    times = sample_times((batch_size, settings.noise_draws), generator=generator)
    return noise.to(device), times.to(device)


def row_order(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row indices: a fresh seeded permutation per epoch, none left out within one."""
    generator = np.random.default_rng(seed)
    pending: list[int] = []
    while True:
        while len(pending) < batch_size:
            pending += generator.permutation(count).tolist()
        yield pending[:batch_size]
        pending = pending[batch_size:]


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then cosine down to a hundredth of the peak."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.01 + 0.495 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on the device."""
    moved: dict[str, Any] = {}
    for name, value in vars(batch).items():
        moved[name] = value.to(device) if hasattr(value, "to") else value
    return Batch(**moved)


def validation_losses(loss: nn.Module, rows: Sequence[Row], settings: LoopSettings, pad_id: int) -> tuple[float, float]:
    """Mean text and flow loss over validation rows with noise that never changes."""
    device = next(loss.parameters()).device
    totals, seen = np.zeros(2), 0
    loss.eval()
    with torch.no_grad():
        for start in range(0, len(rows), settings.batch_size):
            part = rows[start : start + settings.batch_size]
            noise, times = draws(len(part), settings, 10_000_000 + start, device)
            text, flow = loss(batch_to(collate(part, pad_id), device), noise, times)
            totals += len(part) * np.array([float(text), float(flow)])
            seen += len(part)
    loss.train()
    return (float(totals[0] / seen), float(totals[1] / seen)) if seen else (math.nan, math.nan)


def train(
    model: nn.Module,
    rows: Sequence[Row],
    validation: Sequence[Row],
    settings: LoopSettings,
    pad_id: int,
    out: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Train whatever parameters of the model require gradients.

    Writes ``training.jsonl`` (one line a step: step, text_loss, flow_loss, learning_rate, samples_per_s;
    validation lines carry validation_text_loss and validation_flow_loss) and TensorBoard events into ``out``.

    Returns:
        The first and last validation losses, the rate, and peak memory where a GPU ran.

    Raises:
        MonoError: no rows, or a loss that is not finite (with the sample ids of the batch).
    """
    if not rows:
        raise MonoError("a training set without samples", "at least one", "build more, or lower --val-fraction")
    accelerate = require("accelerate", "model")
    tensorboard = require("torch.utils.tensorboard", "model")
    accelerator = accelerate.Accelerator(cpu=device == "cpu")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, settings))
    loss, optimizer, schedule = accelerator.prepare(JointLoss(model, settings.horizon_s), optimizer, schedule)
    chooser = np.random.default_rng(settings.seed + 17)
    order = row_order(len(rows), settings.batch_size, settings.seed)
    result: dict[str, float] = {}
    log = (out / "training.jsonl").open("w")
    events = tensorboard.SummaryWriter(str(out / "tensorboard"))

    def write(step: int, **values: float) -> None:
        log.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in values.items()}}) + "\n")
        log.flush()
        for key, value in values.items():
            events.add_scalar(key, value, step)

    def validate(step: int) -> None:
        text, flow = validation_losses(accelerator.unwrap_model(loss), validation, settings, pad_id)
        write(step, validation_text_loss=text, validation_flow_loss=flow)
        when = "first" if "first_validation_text_loss" not in result else "last"
        result.update({f"{when}_validation_text_loss": text, f"{when}_validation_flow_loss": flow})

    started = time.perf_counter()
    with tqdm(total=settings.steps, desc="finetune", unit="step", dynamic_ncols=True) as bar:
        validate(0)
        for step in range(settings.steps):
            chosen = [rows[index] for index in next(order)]
            silent = (chooser.random(len(chosen)) < settings.thought_dropout).tolist()
            batch = batch_to(collate(chosen, pad_id, silent), accelerator.device)
            noise, times = draws(len(batch), settings, step, accelerator.device)
            text, flow = loss(batch, noise, times)
            total = settings.text_weight * text + settings.flow_weight * flow
            if not torch.isfinite(total):
                raise MonoError(
                    f"a loss that is not finite at step {step} (text {float(text)}, flow {float(flow)}); "
                    f"samples: {', '.join(batch.sample_ids)}",
                    "finite losses",
                    "look at these samples, or lower --learning_rate",
                )
            accelerator.backward(total)
            accelerator.clip_grad_norm_(trainable, settings.gradient_clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            rate = (step + 1) * settings.batch_size / (time.perf_counter() - started)
            text_value, flow_value = float(text.detach()), float(flow.detach())
            write(
                step + 1,
                text_loss=text_value,
                flow_loss=flow_value,
                learning_rate=schedule.get_last_lr()[0],
                samples_per_s=rate,
            )
            bar.set_postfix(text=f"{text_value:.3f}", flow=f"{flow_value:.3f}", rate=f"{rate:.1f}/s")
            bar.update()
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
                validate(step + 1)
    log.close()
    events.close()
    result["samples_per_s"] = settings.steps * settings.batch_size / (time.perf_counter() - started)
    if torch.cuda.is_available():
        result["peak_memory_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return result
