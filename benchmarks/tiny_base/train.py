"""Train the tiny base on rigs of two to four cameras: the experiment's stand-in for NVIDIA's pre-training.

A maintainer's job on a GPU; its result lies in ``finetune/tiny_base``, whose README names the commands and the seeds.
The schedule counts steps and every draw follows from the seed, so on one kind of machine the command gives the same
weights again: ``training.jsonl`` holds their SHA-256 on the way.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.tiny_base.architecture import IMAGES, PROMPT_WORDS, build_tokenizer, tiny_config
from benchmarks.tiny_base.new_model import adopt_weights, new_model
from benchmarks.tiny_base.prompts import encode_prompts
from benchmarks.tiny_base.shards import FULL_RIG, SMALL_RIGS, Rig, Shards, load_shards, patchify
from collector.common.command_line import command_line
from finetune.alpamayo.flow_matching import horizon_weights, interpolate, sample_times
from finetune.alpamayo.generation import generate
from finetune.alpamayo.model import AlpamayoR1, VisionFeatures
from finetune.checkpoint import LoadedModel, load_model, save_model
from finetune.evaluation.consistency import check_reasoning, summarise
from finetune.evaluation.metrics import path_errors
from finetune.processing.processor import Processor
from finetune.training.loss import draws
from finetune.training.order import row_order
from finetune.training.settings import LoopSettings, learning_rate_factor

VALIDATION_SAMPLES, LOG_EVERY = 512, 250


@dataclass(frozen=True)
class BaseConfig:
    """Train the tiny base.

    Attributes:
        data: folder of shards made by `python -m benchmarks.tiny_base.render`.
        out: model folder to write, in the official layout, with training.jsonl and training.json beside the weights.
        init: a base to go on from, in its own words or in fewer; without, weights are random and action_in_proj is
            pre-trained.
        validation_courses: so many shards, the last ones, are only evaluated.
        steps: optimiser steps.
        batch_size: samples per step.
        learning_rate: peak of the cosine schedule.
        projection_steps: steps of the pre-training of action_in_proj as a reader of noisy actions.
        small_rigs: share of steps on a rig of two or three cameras, the front camera always among them and the tele
            nearly always, with four frames of each or the newest alone.
        average: decay of the weight average that is saved.
        seed: of weights, order and noise.
        device: torch device.
    """

    data: Path
    out: Path
    init: Path | None = None
    validation_courses: int = 8
    steps: int = 5462
    batch_size: int = 64
    learning_rate: float = 1.2e-3
    projection_steps: int = 3000
    small_rigs: float = 0.0
    average: float = 0.998
    seed: int = 0
    device: str = "cuda"

    @property
    def loop(self) -> LoopSettings:
        """The settings that finetuning has too."""
        return LoopSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=200,
            weight_decay=0.01,
            horizon_s=3.0,
            noise_draws=4,
            reasoning_dropout=0.15,
            seed=self.seed,
        )


def pretrain_projection(model: AlpamayoR1, actions: Tensor, config: BaseConfig) -> float:
    """Teach ``action_in_proj`` to keep x_t readable before anything else trains.

    The block sees noisy actions only through Fourier features whose lowest frequency is 1, so values beyond half a
    period alias; a linear read-out of x_t is learned with it and thrown away. Without this the flow loss stays
    near that of a network that cannot see its input.

    Returns:
        The last mean squared error of the read-out, in normalised units squared.
    """
    device = actions.device
    width = model.action_in_proj(actions[:1], torch.zeros(1, device=device)).shape[-1]
    head = nn.Linear(width, 2).to(device)
    parameters = [*model.action_in_proj.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.projection_steps))
    generator = torch.Generator(device=device).manual_seed(config.seed)
    error = torch.zeros(())
    for _ in range(config.projection_steps):
        chosen = torch.randint(len(actions), (256,), device=device, generator=generator)
        noise = torch.randn(256, 64, 2, device=device, generator=generator)
        t = sample_times((256,), generator=generator, device=str(device))
        x = interpolate(actions[chosen], noise, t)
        # Large curvatures would otherwise own the error; what must be readable is every scale.
        weight = 1.0 / (1.0 + x.abs())
        error = ((head(model.action_in_proj(x, t)) - x).pow(2) * weight).mean()
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        schedule.step()
    return float(error.detach())


class BaseTrainer:
    """Samples of the shards through the model: images to patches on the device, losses, and plans to judge."""

    def __init__(self, model: AlpamayoR1, processor: Processor, shards: Shards, config: BaseConfig) -> None:
        self.model, self.processor, self.shards, self.settings = model, processor, shards, config.loop
        self.device = torch.device(config.device)
        rows, columns = IMAGES.resize_height_px or 0, IMAGES.resize_width_px or 0
        self.grid = torch.tensor([1, rows // IMAGES.patch_size, columns // IMAGES.patch_size], device=self.device)
        self.prompts = encode_prompts(shards, processor, int(self.grid.prod()) // IMAGES.merge_size**2, self.device)
        weights = horizon_weights(self.settings.horizon_s)
        self.weights = None if weights is None else weights.to(self.device)
        with torch.no_grad():
            history = torch.from_numpy(shards.history).to(self.device)
            future = torch.from_numpy(shards.future).to(self.device)
            self.actions = model.action_space.traj_to_action(history, future).float()

    def see(self, chosen: Tensor, rig: Rig) -> tuple[VisionFeatures, Tensor]:
        """Image features of samples as one rig sees them, and the grids of all images."""
        images = self.shards.images(chosen, rig)
        grids = self.grid.expand(len(images), 3)
        return self.model.encode_images(patchify(images), grids), grids

    def losses(self, chosen: Tensor, silent: bool, step: int, rig: Rig = FULL_RIG) -> tuple[Tensor, Tensor]:
        """Mean text and flow loss of a batch."""
        # Images and words bear bfloat16; the expert does not: it must read noise through aliased features.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            vision, grids = self.see(chosen, rig)
            ids, mask, labels = self.prompts.batch(chosen, silent, rig.images)
            prefix = self.model.run_prefix(ids, mask.long(), vision, grids)
            text = torch.zeros((), device=self.device) if silent else self.model.text_loss(prefix, labels).mean()
        noise, times = draws(len(chosen), self.settings, step, self.device)
        flow = self.model.flow_loss(prefix, self.actions[chosen], noise, times, self.weights).mean()
        return text.float(), flow

    @torch.no_grad()
    def judge(self, chosen: Tensor, rig: Rig = FULL_RIG) -> dict[str, Any]:
        """Reason and plan as in driving, from zero noise: losses, errors and consistency on validation samples."""
        self.model.eval()
        losses, texts, paths = [], [], []
        for number, part in enumerate(chosen.split(128)):
            losses.append(torch.stack(self.losses(part, False, number, rig)).tolist())
            vision, grids = self.see(part, rig)
            ids, _, labels = self.prompts.batch(part, False, rig.images)
            ids = ids[:, : int(labels[0].long().argmax())]  # prompts differ only after this
            prefix = self.model.run_prefix(ids, torch.ones_like(ids), vision, grids)
            spoken = generate(self.model, prefix, cot_end_id=self.processor.cot_end_id, max_new_tokens=48)
            texts += [self.processor.decode_reasoning(tokens) for tokens in spoken.tokens]
            actions = self.model.sample_actions(spoken.prefix, torch.zeros(len(part), 64, 2, device=self.device))
            history = torch.from_numpy(self.shards.history[part.cpu().numpy()]).to(self.device)
            paths.append(self.model.action_space.action_to_traj(history, actions.double()).cpu().numpy())
        self.model.train()
        path, truth = np.concatenate(paths), self.shards.future[chosen.cpu().numpy()]
        errors = [path_errors(one, other) for one, other in zip(path, truth, strict=True)]
        checks = [check_reasoning(text, one, other) for text, one, other in zip(texts, path, truth, strict=True)]
        text_loss, flow_loss = np.mean(losses, axis=0).tolist()
        return {
            "samples": len(chosen),
            "text_loss": text_loss,
            "flow_loss": flow_loss,
            **{key: float(np.mean([row[key] for row in errors])) for key in errors[0] if "lateral" not in key},
            "consistency": asdict(summarise(checks)),
            "examples": texts[:5],
        }


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters as they are."""
    digest = hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run_steps(trainer: BaseTrainer, train: NDArray[np.int64], config: BaseConfig) -> AlpamayoR1:
    """The optimiser steps over the samples ``train``; returns the weights' average and writes training.jsonl."""
    model, device, settings = trainer.model, trainer.device, trainer.settings
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    order, chooser = row_order(len(train), settings.batch_size, settings.seed), np.random.default_rng(settings.seed)
    sums = torch.zeros(2, device=device)
    with (config.out / "training.jsonl").open("w") as log:
        for step in tqdm(range(settings.steps), "train base", unit="step", mininterval=5, dynamic_ncols=True):
            rate = settings.learning_rate * learning_rate_factor(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = torch.from_numpy(train[next(order)]).to(device)
            silent = bool(chooser.random() < settings.reasoning_dropout)
            small = chooser.random() < config.small_rigs
            rig = SMALL_RIGS[int(chooser.integers(len(SMALL_RIGS)))] if small else FULL_RIG
            text, flow = trainer.losses(chosen, silent, step, rig)
            optimizer.zero_grad(set_to_none=True)
            (settings.text_weight * text + settings.flow_weight * flow).backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimizer.step()
            decay = min(config.average, (2 + step) / (11 + step))
            with torch.no_grad():
                sums += torch.stack([text, flow])
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
            if (step + 1) % LOG_EVERY == 0 or step + 1 == settings.steps:
                text_sum, flow_sum = sums.tolist()
                sums.zero_()
                count = step % LOG_EVERY + 1
                line = {"step": step + 1, "text_loss": text_sum / count, "flow_loss": flow_sum / count, "rate": rate}
                line = {key: round(value, 6) for key, value in line.items()}
                log.write(json.dumps({**line, "weights_sha256": weights_hash(model)}) + "\n")
                log.flush()
    return average


def train_base(config: BaseConfig) -> dict[str, Any]:
    """Train and save the base; returns the metrics that lie beside it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    # Process-wide, and needed only where kernels race: on a CPU it stays as it is.
    torch.use_deterministic_algorithms(device.type == "cuda")
    shards = load_shards(config.data, device, config.seed)
    tokenizer = build_tokenizer([*shards.reasoning, PROMPT_WORDS])
    loaded = new_model(tiny_config(tokenizer), tokenizer, images=IMAGES, seed=config.seed, device=device)
    model = loaded.model
    if config.init is not None:
        adopt_weights(loaded, load_model(config.init, dtype=torch.float32, device=device))
    trainer = BaseTrainer(model, loaded.processor, shards, config)
    course_of = shards.course.cpu().numpy()
    held_out = np.isin(course_of, np.unique(course_of)[-config.validation_courses :])
    train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    keep = np.linspace(0, len(validation) - 1, min(VALIDATION_SAMPLES, len(validation))).astype(int)
    print(f"{len(train)} training samples, {len(keep)} for validation", flush=True)

    model.train()
    projection_error = None
    if config.init is None:
        projection_error = pretrain_projection(model, trainer.actions, config)
        print(f"action_in_proj reads noisy actions with weighted error {projection_error:.4f}", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    average = run_steps(trainer, train, config)
    seconds = time.perf_counter() - began
    save_model(LoadedModel(average, loaded.processor, loaded.config), config.out, dtype=torch.bfloat16)
    chosen = torch.from_numpy(validation[keep]).to(device)
    trainer.model = average
    metrics = {
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "projection_error": projection_error,
        "weights_sha256": weights_hash(average),
        **trainer.judge(chosen),
    }
    record = {
        "config": {key: value.name if isinstance(value, Path) else value for key, value in asdict(config).items()},
        "metrics": metrics,
        "torch": torch.__version__,
    }
    (config.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(metrics, indent=2), flush=True)
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m benchmarks.tiny_base.train``."""
    train_base(command_line(BaseConfig, argv, "python -m benchmarks.tiny_base.train"))


if __name__ == "__main__":
    main()
