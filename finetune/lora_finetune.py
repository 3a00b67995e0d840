"""Finetune LoRA adapters on the language model and the action expert of an Alpamayo-R1.

    python -m finetune.lora_finetune --model MODEL --dataset DATASET --lora_rank 16 --lora_alpha 32
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from collector.errors import MonoError
from collector.run_folder import command_line, open_run
from collector.samples import read_samples
from finetune.cores import share_cores
from finetune.model_folder import resolve_model
from finetune.policy import CameraMode


@dataclass(frozen=True)
class FinetuneConfig:
    """Train LoRA adapters with a text loss and a trajectory loss together.

    Attributes:
        model: an Alpamayo-R1 or 1.5, a folder in the official layout or its id on the Hugging Face hub.
        dataset: dataset folder made by `alpamayo-mono build`.
        out: run folder; the adapter lands in OUT/adapter.
        cameras: what the kart will have when it drives: one front frame (mono), four front frames
            (mono-4frames), or four cameras of which three are black (mono-padded).
        lora_rank: rank of the LoRA matrices.
        lora_alpha: the LoRA update is scaled by alpha / rank.
        lora_dropout: dropout in front of the LoRA matrices.
        adapt_language: LoRA on the language model.
        adapt_expert: LoRA on the action expert.
        adapt_vision: LoRA on the vision tower; without it image features are computed once, which is much faster.
        train_projections: train the two action projections in full.
        steps: optimiser steps.
        batch_size: samples per step.
        learning_rate: peak learning rate. 1e-4 suits the 10B weights, 2e-3 the tiny model.
        warmup_steps: linear warm-up.
        text_weight: weight of the chain-of-causation cross-entropy.
        flow_weight: weight of the flow-matching loss.
        horizon_s: let the flow loss fade along the path with this time constant; 0 weighs all 6.4 s alike, as released.
        noise_draws: flow noises per sample and step.
        mirror: train on the mirror image of every sample too; for a camera on the kart's middle line.
        thought_dropout: share of samples trained without their thought, so that the path also follows the image.
        validate_every: steps between validation losses.
        seed: of everything drawn.
        device: cpu or cuda.
        dtype: float32 or bfloat16 for the frozen weights.
        threads: torch threads on a CPU; 0 leaves torch's choice.
    """

    model: Path
    dataset: Path
    out: Path = Path("runs/finetune")
    cameras: CameraMode = "mono"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    adapt_language: bool = True
    adapt_expert: bool = True
    adapt_vision: bool = False
    train_projections: bool = True
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 1e-4
    warmup_steps: int = 20
    text_weight: float = 1.0
    flow_weight: float = 1.0
    horizon_s: float = 0.0
    noise_draws: int = 2
    mirror: bool = False
    thought_dropout: float = 0.1
    validate_every: int = 50
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train and save an adapter.

    Returns:
        The metrics written to ``OUT/metrics.json``.

    Raises:
        MonoError: an empty dataset, a folder that is no model, a part without trainable parameters.
    """
    import torch

    from finetune.adapters import LoraSettings, add_lora, save_adapter, trainable_counts, trainable_table
    from finetune.alpamayo.checkpoint import load_model
    from finetune.batches import cache_vision, encode_row
    from finetune.training import LoopSettings, train

    if config.cameras == "four":
        raise MonoError(
            "--cameras four", "a mode of the one front camera: mono, mono-4frames or mono-padded",
            "the dataset holds front frames only; choose mono",
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    samples = list(read_samples(config.dataset))
    if not samples:
        raise MonoError(f"no sample in {config.dataset}", "a dataset with at least one", "run `alpamayo-mono build`")
    base = resolve_model(config.model)
    loaded = load_model(base, dtype=getattr(torch, config.dtype), device=config.device)
    run = open_run(config.out, config, inputs=[config.dataset / "metadata.jsonl", base])

    rows: dict[str, list[Any]] = {}
    for split in ("train", "val"):
        views = [
            (sample, mirrored)
            for sample in samples
            if sample.split == split
            for mirrored in ((False, True) if config.mirror and split == "train" else (False,))
        ]
        encoded: Iterator[Any] = (
            encode_row(loaded, sample, config.dataset, config.cameras, mirrored) for sample, mirrored in views
        )
        if not config.adapt_vision:
            encoded = cache_vision(loaded.model, encoded, torch.device(config.device))
        bar = tqdm(encoded, total=len(views), desc=f"encode ({split})", unit="sample", dynamic_ncols=True)
        rows[split] = list(bar)

    settings = LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        language_model=config.adapt_language,
        action_expert=config.adapt_expert,
        vision_tower=config.adapt_vision,
        action_projections=config.train_projections,
    )
    adapted = add_lora(loaded.model, settings)
    print(trainable_table(loaded.model))
    loop = LoopSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        text_weight=config.text_weight,
        flow_weight=config.flow_weight,
        horizon_s=config.horizon_s,
        noise_draws=config.noise_draws,
        thought_dropout=config.thought_dropout,
        validate_every=config.validate_every,
        seed=config.seed,
    )
    losses = train(
        loaded.model, rows["train"], rows["val"], loop, loaded.processor.pad_id, run.folder, device=config.device
    )
    save_adapter(adapted, run.folder / "adapter", base, config.cameras)
    metrics = {
        "train_samples": len(rows["train"]),
        "validation_samples": len(rows["val"]),
        "trainable_parameters": {part: counts[0] for part, counts in trainable_counts(loaded.model).items()},
        **losses,
    }
    run.write_metrics(metrics)
    print(f"adapter: {run.folder / 'adapter'}")
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono finetune``."""
    share_cores()
    finetune(command_line(FinetuneConfig, argv, "alpamayo-mono finetune"))


if __name__ == "__main__":
    main()
