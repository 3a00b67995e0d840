"""Train the tiny base on two to four cameras over random courses: the experiment's stand-in for NVIDIA's pre-training.

Needs a GPU: minutes on an H200, most of a day on two cores. The trained weights therefore lie in the repository;
this is the command that made them.

    alpamayo-mono render-base --out DATA --courses 400
    alpamayo-mono train-base --data DATA --out MODEL --device cuda
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from collector.common.errors import MonoError
from collector.common.run_folder import command_line
from finetune.alpamayo.configuration import ALPAMAYO_1_5
from finetune.evaluation.consistency import check_reasoning, summarise
from finetune.evaluation.metrics import path_errors
from finetune.policy import CAMERA_ORDER, FRAMES_PER_CAMERA
from finetune.pretraining.architecture import IMAGES, build_tokenizer, tiny_config
from finetune.pretraining.shards import Shards, load_shards, patchify

# The released model was trained on several sensor configurations. Ours are these; a camera's place in the prompt is
# all that names it, so every rig keeps the order of CAMERA_ORDER, and none is the front camera alone.
FULL_RIG: tuple[str, ...] = CAMERA_ORDER
SMALL_RIGS: tuple[tuple[str, ...], ...] = (
    ("cross_left", "front", "front_tele"),
    ("front", "cross_right", "front_tele"),
    ("front", "front_tele"),
)


@dataclass(frozen=True)
class BaseConfig:
    """Train the tiny base.

    Attributes:
        data: folder of shards made by `alpamayo-mono render-base`.
        out: model folder to write, in the official layout, with training.jsonl beside the weights.
        init: a base to go on from; without, weights are random and action_in_proj is pre-trained.
        validation_courses: so many shards, the last ones, are only evaluated.
        steps: optimiser steps; 0 trains until minutes are over.
        minutes: wall minutes after which the schedule must have ended, when steps is 0.
        batch_size: samples per step.
        noise_draws: flow noises per sample.
        learning_rate: peak of the cosine schedule.
        projection_steps: steps of the pre-training of action_in_proj as a reader of noisy actions.
        reasoning_dropout: share of samples without reasoning.
        small_rigs: share of steps on a rig of two or three cameras, the front camera and the tele always among them;
            0 trains on all four alone.
        text_weight, flow_weight: weights of the losses.
        horizon_s: fading of the flow loss along the path, see ``flow_matching.horizon_weights``.
        average: decay of the weight average that is saved; 0 saves the last weights.
        seed: of weights, order and noise.
        device: torch device.
    """

    data: Path
    out: Path
    init: Path | None = None
    validation_courses: int = 8
    steps: int = 0
    minutes: float = 7.0
    batch_size: int = 64
    noise_draws: int = 4
    learning_rate: float = 1.2e-3
    projection_steps: int = 3000
    reasoning_dropout: float = 0.15
    small_rigs: float = 0.5
    text_weight: float = 1.0
    flow_weight: float = 1.0
    horizon_s: float = 3.0
    average: float = 0.998
    seed: int = 0
    device: str = "cuda"


@dataclass(frozen=True)
class Prompts:
    """Every sample's prompt for the full rig as padded ids, thinking and silent; on the device.

    Attributes:
        ids, lengths, labels: (N, L), (N,), (N, L) with the reasoning; labels mark what is to be learned.
        silent_ids, silent_lengths: (N, L2), (N,) without.
        images_at: column of the first image. image_length: columns of one image, its marks included.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor
    silent_ids: Tensor
    silent_lengths: Tensor
    images_at: int
    image_length: int

    def batch(self, chosen: Tensor, silent: bool, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels (B, L) of samples shown only so many images: fewer placeholders, that is all."""
        spare = (len(FULL_RIG) * FRAMES_PER_CAMERA - images) * self.image_length

        def shortened(table: Tensor) -> Tensor:
            return torch.cat([table[:, : self.images_at], table[:, self.images_at + spare : length + spare]], dim=1)

        lengths = (self.silent_lengths if silent else self.lengths)[chosen] - spare
        length = int(lengths.max())
        ids = shortened((self.silent_ids if silent else self.ids)[chosen].long())
        mask = torch.arange(length, device=ids.device) < lengths[:, None]
        labels = torch.zeros_like(mask) if silent else shortened(self.labels[chosen])
        return ids, mask, labels


def encode_prompts(shards: Shards, processor: Any, tokens_per_image: int, device: torch.device) -> Prompts:
    """Prompts of all samples through the processor's own builder; the images add only their placeholders."""
    rows, learned, silent = [], [], []
    counts = [tokens_per_image] * (len(FULL_RIG) * FRAMES_PER_CAMERA)
    for history, text in zip(tqdm(shards.history, desc="prompts", unit="sample"), shards.reasoning):
        words = processor.history_ids(history)
        ids, count = processor.prompt.build(counts, words, text)
        rows.append(ids)
        learned.append(count)
        silent.append(processor.prompt.build(counts, words, "")[0])

    def padded(values: list[list[int]]) -> tuple[Tensor, Tensor]:
        lengths = np.array([len(value) for value in values])
        out = np.full((len(values), lengths.max()), processor.pad_id, np.int32)
        for row, value in zip(out, values):
            row[: len(value)] = value
        return torch.from_numpy(out).to(device), torch.from_numpy(lengths).to(device)

    ids, lengths = padded(rows)
    column = torch.arange(ids.shape[1], device=device)
    first = lengths - torch.tensor(learned, device=device)
    labels = (column >= first[:, None]) & (column < lengths[:, None])
    silent_ids, silent_lengths = padded(silent)
    images_at = rows[0].index(processor.tokenizer.id_of("<|vision_start|>"))
    return Prompts(ids, lengths, labels, silent_ids, silent_lengths, images_at, tokens_per_image + 2)


def pretrain_projection(model: Any, actions: Tensor, config: BaseConfig) -> float:
    """Teach ``action_in_proj`` to keep x_t readable before anything else trains.

    The block sees noisy actions only through Fourier features whose lowest frequency is 1, so values beyond half a
    period alias; a linear read-out of x_t is learned with it and thrown away. Without this the flow loss stays
    near that of a network that cannot see its input.

    Returns:
        The last mean squared error of the read-out, in normalised units squared.
    """
    from finetune.alpamayo.flow_matching import interpolate, sample_times

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
    """The loop: images from the shards, patches on the device, one joint loss."""

    def __init__(self, model: Any, processor: Any, shards: Shards, config: BaseConfig) -> None:
        self.model, self.processor, self.shards, self.config = model, processor, shards, config
        self.device = torch.device(config.device)
        rows, columns = IMAGES.resize_height_px or 0, IMAGES.resize_width_px or 0
        grid = torch.tensor([1, rows // IMAGES.patch_size, columns // IMAGES.patch_size], device=self.device)
        self.grid = grid
        self.tokens_per_image = int(grid.prod()) // IMAGES.merge_size**2
        self.prompts = encode_prompts(shards, processor, self.tokens_per_image, self.device)
        with torch.no_grad():
            history = torch.from_numpy(shards.history)
            future = torch.from_numpy(shards.future)
            self.actions = model.action_space.traj_to_action(history.to(self.device), future.to(self.device)).float()

    def prefix(self, chosen: Tensor, silent: bool = False, rig: tuple[str, ...] = FULL_RIG) -> tuple[Any, Tensor]:
        """Run the language model over samples as one rig sees them; returns the prefix and the label mask."""
        images = self.shards.images(chosen, rig)
        grids = self.grid.expand(len(images), 3)
        vision = self.model.encode_images(patchify(images), grids)
        ids, mask, labels = self.prompts.batch(chosen, silent, len(images) // len(chosen))
        return self.model.run_prefix(ids, mask.long(), vision, grids), labels

    def losses(
        self, chosen: Tensor, silent: bool, generator: torch.Generator, rig: tuple[str, ...] = FULL_RIG
    ) -> tuple[Tensor, Tensor]:
        """Mean text and flow loss of a batch."""
        from finetune.alpamayo.flow_matching import horizon_weights, sample_times

        # Images and words bear bfloat16; the expert does not: it must read noise through aliased features.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            prefix, labels = self.prefix(chosen, silent, rig)
            text = torch.zeros((), device=self.device) if silent else self.model.text_loss(prefix, labels).mean()
        weights = horizon_weights(self.config.horizon_s)
        weights = None if weights is None else weights.to(self.device)
        shape = (len(chosen), self.config.noise_draws)
        noise = torch.randn(*shape, 64, 2, device=self.device, generator=generator)
        times = sample_times(shape, generator=generator, device=str(self.device))
        return text.float(), self.model.flow_loss(prefix, self.actions[chosen], noise, times, weights).mean()

    @torch.no_grad()
    def validate(self, chosen: Tensor) -> dict[str, float]:
        """Losses and plans with zero noise on validation samples, forced onto the true reasoning."""
        self.model.eval()
        generator = torch.Generator(device=self.device).manual_seed(1)
        totals: list[list[float]] = []
        paths = []
        for part in chosen.split(32):
            text, flow = self.losses(part, False, generator)
            prefix, _ = self.prefix(part)
            actions = self.model.sample_actions(prefix, torch.zeros(len(part), 64, 2, device=self.device))
            history = torch.from_numpy(self.shards.history[part.cpu().numpy()]).to(self.device)
            paths.append(self.model.action_space.action_to_traj(history, actions.double()).cpu().numpy())
            totals.append([float(text), float(flow)])
        self.model.train()
        path = np.concatenate(paths)
        truth = self.shards.future[chosen.cpu().numpy()]
        errors = [path_errors(one, other) for one, other in zip(path, truth)]
        text, flow = np.mean(totals, axis=0)
        return {
            "validation_text_loss": float(text),
            "validation_flow_loss": float(flow),
            "validation_ade_3s_m": float(np.mean([row["ade_3s_m"] for row in errors])),
            "validation_ade_1s_m": float(np.mean([row["ade_1s_m"] for row in errors])),
        }


@torch.no_grad()
def judge_generation(trainer: BaseTrainer, chosen: Tensor) -> dict[str, Any]:
    """Think and plan as in driving, from zero noise: errors and reasoning-path consistency on validation samples."""
    from finetune.alpamayo.generation import generate

    model, processor, shards = trainer.model, trainer.processor, trainer.shards
    model.eval()
    texts: list[str] = []
    paths = []
    for part in chosen.split(32):
        length = int(trainer.prompts.labels[part].long().argmax(dim=1)[0])  # prompts differ only after this
        images = shards.images(part, FULL_RIG)
        grids = trainer.grid.expand(len(images), 3)
        vision = model.encode_images(patchify(images), grids)
        ids = trainer.prompts.ids[part, :length].long()
        prefix = model.run_prefix(ids, torch.ones_like(ids), vision, grids)
        spoken = generate(model, prefix, cot_end_id=processor.cot_end_id, max_new_tokens=48)
        texts += [processor.decode_reasoning(tokens) for tokens in spoken.tokens]
        actions = model.sample_actions(spoken.prefix, torch.zeros(len(part), 64, 2, device=trainer.device))
        history = torch.from_numpy(shards.history[part.cpu().numpy()]).to(trainer.device)
        paths.append(model.action_space.action_to_traj(history, actions.double()).cpu().numpy())
    model.train()
    path, truth = np.concatenate(paths), shards.future[chosen.cpu().numpy()]
    errors = [path_errors(one, other) for one, other in zip(path, truth)]
    checks = [check_reasoning(text, one, other) for text, one, other in zip(texts, path, truth)]
    return {
        "samples": len(chosen),
        **{key: float(np.mean([row[key] for row in errors])) for key in errors[0]},
        "consistency": summarise(checks).as_dict(),
        "examples": texts[:5],
    }


def train_base(config: BaseConfig) -> dict[str, Any]:
    """Train and save the base; returns the metrics that lie beside it."""
    from finetune.checkpoint import LoadedModel, load_model, new_model, save_model

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    device = torch.device(config.device)
    shards = load_shards(config.data, device, config.seed)
    if config.init is not None:
        loaded = load_model(config.init, dtype=torch.float32, device=device)
        if loaded.config.model_type == ALPAMAYO_1_5:
            raise MonoError(f"--init {config.init} is an Alpamayo 1.5", "an Alpamayo 1, as is trained here", "omit it")
    else:
        tokenizer = build_tokenizer(shards.reasoning)
        loaded = new_model(tiny_config(tokenizer), tokenizer, images=IMAGES, seed=config.seed, device=device)
    model: Any = loaded.model
    trainer = BaseTrainer(model, loaded.processor, shards, config)
    course_of = shards.course.cpu().numpy()
    held_out = np.unique(course_of)[-config.validation_courses :]
    train = torch.from_numpy(np.flatnonzero(~np.isin(course_of, held_out))).to(device)
    validation_rows = np.flatnonzero(np.isin(course_of, held_out))
    keep = np.linspace(0, len(validation_rows) - 1, min(512, len(validation_rows))).astype(int)
    validation = torch.from_numpy(validation_rows[keep]).to(device)
    print(f"{len(train)} training samples, {len(validation)} for validation", flush=True)

    model.train()
    projection_error = None
    if config.init is None:
        projection_error = pretrain_projection(model, trainer.actions, config)
        print(f"action_in_proj reads noisy actions with weighted error {projection_error:.4f}", flush=True)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=device.type == "cuda"
    )
    generator = torch.Generator(device=device).manual_seed(config.seed)
    chooser = np.random.default_rng(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, float]] = []
    began = time.perf_counter()
    step = 0
    sums = torch.zeros(2, device=device)
    bar = tqdm(desc="train base", unit="step", mininterval=5, dynamic_ncols=True)
    while True:
        if config.steps:
            progress = step / config.steps
        else:
            progress = (time.perf_counter() - began) / (60.0 * config.minutes)
        if progress >= 1.0:
            break
        warm = min(1.0, (step + 1) / 200)
        rate = config.learning_rate * warm * max(0.02, 0.5 * (1.0 + np.cos(np.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = train[torch.randint(len(train), (config.batch_size,), device=device, generator=generator)]
        silent = bool(chooser.random() < config.reasoning_dropout)
        rig = FULL_RIG
        if chooser.random() < config.small_rigs:
            rig = SMALL_RIGS[int(chooser.integers(len(SMALL_RIGS)))]
        text, flow = trainer.losses(chosen, silent, generator, rig)
        total = config.text_weight * text + config.flow_weight * flow
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        sums += torch.stack([text.detach().float(), flow.detach().float()])
        decay = min(config.average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
        if step % 250 == 0:
            mean_text, mean_flow = (sums / 250).tolist()
            sums.zero_()
            line = {"step": step, "text_loss": mean_text, "flow_loss": mean_flow, "learning_rate": float(rate)}
            if step % 1000 == 0:
                live, trainer.model = trainer.model, average
                line.update(trainer.validate(validation))
                trainer.model = live
                save_model(LoadedModel(average, loaded.processor, loaded.config), config.out, dtype=torch.bfloat16)
            history.append({key: round(float(value), 6) for key, value in line.items()})
            bar.write(json.dumps(history[-1]))
        bar.update()
    bar.close()
    trainer.model = average if config.average else model
    judged = judge_generation(trainer, validation)
    metrics = {
        "steps": step,
        "seconds": time.perf_counter() - began,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "projection_error": projection_error,
        **trainer.validate(validation),
        "generated": judged,
    }
    save_model(LoadedModel(trainer.model, loaded.processor, loaded.config), config.out, dtype=torch.bfloat16)
    (config.out / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    resolved = {
        **asdict(config),
        "data": config.data.name,
        "out": config.out.name,
        "init": config.init.name if config.init else None,
    }
    record = {"config": resolved, "metrics": metrics, "torch": torch.__version__}
    (config.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(metrics, indent=2), flush=True)
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono train-base``."""
    train_base(command_line(BaseConfig, argv, "alpamayo-mono train-base"))


if __name__ == "__main__":
    main()
