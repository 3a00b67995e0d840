"""LoRA on both halves of Alpamayo-R1: where it goes, how it is saved, and the proof that it is there.

An adapter folder is a normal PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``). The two
action projections are small and carry the kart's units, so they train in full beside the LoRA matrices
(PEFT's ``modules_to_save``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collector.errors import MonoError, require
from finetune.training_settings import LoraSettings

_TEXT_LINEARS = r"self_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj"
# A part is a place in the model that can be adapted; each has its own column in the trainable table.
PART_PATTERNS: dict[str, str] = {
    "language model": rf"vlm\.model\.language_model\.layers\.\d+\.(?:{_TEXT_LINEARS})",
    "action expert": rf"expert\.layers\.\d+\.(?:{_TEXT_LINEARS})",
    "vision tower": (
        r"vlm\.model\.visual\.(?:blocks\.\d+\.(?:attn\.(?:qkv|proj)|mlp\.linear_fc[12])"
        r"|(?:merger|deepstack_merger_list\.\d+)\.linear_fc[12])"
    ),
}
ACTION_PROJECTIONS = ("action_in_proj", "action_out_proj")


def add_lora(model: nn.Module, settings: LoraSettings) -> Any:
    """Freeze a base and add LoRA in place.

    Args:
        model: an ``AlpamayoR1``; its linear layers are replaced by adapted ones, so the object itself is
            the adapted model afterwards.
        settings: parts, rank and scale.

    Returns:
        The ``PeftModel`` around it; needed for saving.

    Raises:
        MonoError: no part chosen, or a chosen part has no trainable parameter.
    """
    peft = require("peft", "model")
    parts = settings.parts()
    if not parts:
        raise MonoError(
            "LoRA with every part switched off", "the language model, the action expert, or both", "switch one on"
        )
    pattern = "(?:" + "|".join(PART_PATTERNS[part] for part in parts) + ")"
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=pattern,
        modules_to_save=list(ACTION_PROJECTIONS) if settings.action_projections else None,
        bias="none",
    )
    adapted = peft.get_peft_model(model, config)
    refuse_parts_without_training(model, settings)
    return adapted


def train_in_full(model: nn.Module, settings: LoraSettings) -> None:
    """Let every weight of the chosen parts train, the vocabulary and the head with the language model.

    Args:
        model: an ``AlpamayoR1``.
        settings: the parts; rank and scale have no meaning here.

    Raises:
        MonoError: as :func:`add_lora`.
    """
    chosen = [*settings.parts(), *(["action projections"] if settings.action_projections else [])]
    if settings.language_model:
        chosen.append("embeddings and norms")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in chosen)
    refuse_parts_without_training(model, settings)


def refuse_parts_without_training(model: nn.Module, settings: LoraSettings) -> None:
    """Look into the model whether every part that was asked for will train.

    Raises:
        MonoError: no part chosen, or one without a trainable parameter.
    """
    counts = trainable_counts(model)
    parts = [*settings.parts(), *(["action projections"] if settings.action_projections else [])]
    if not parts:
        raise MonoError(
            "training with every part switched off", "the language model, the action expert, or both", "switch one on"
        )
    for part in parts:
        if counts[part][0] == 0:
            raise MonoError(
                f"no trainable parameter in the {part}",
                "some in every chosen part",
                "check that the model folder is an Alpamayo-R1 (its layer names decide what trains)",
            )


def part_of(parameter_name: str) -> str:
    """The part a parameter belongs to: one of the table's rows."""
    name = re.sub(r"\.(?:base_layer|lora_[AB]\.\w+|modules_to_save\.\w+|original_module)", "", parameter_name)
    name = name.removeprefix("base_model.model.")
    if name.startswith(ACTION_PROJECTIONS):
        return "action projections"
    if name.startswith("expert."):
        return "action expert"
    if ".visual." in name:
        return "vision tower"
    if ".language_model.layers." in name:
        return "language model"
    return "embeddings and norms"


def trainable_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Part -> (trainable, total) parameters, every part present even when zero.

    The frozen originals that PEFT keeps beside fully trained modules are not counted twice.
    """
    counts = dict.fromkeys((*PART_PATTERNS, "action projections", "embeddings and norms"), (0, 0))
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        part = part_of(name)
        trainable, total = counts[part]
        packed = getattr(parameter, "quant_state", None)  # four bits: several weights in one stored number
        size = parameter.numel() if packed is None else packed.shape.numel()
        counts[part] = (trainable + (size if parameter.requires_grad else 0), total + size)
    return counts


def trainable_table(model: nn.Module) -> str:
    """The printed table of trainable parameters per part, their share of it, and the sum."""
    counts = trainable_counts(model)
    trainable, total = (sum(column) for column in zip(*counts.values()))
    lines = [f"{'part':<22}{'trainable':>16}{'total':>18}{'share':>9}"]
    for part, (learned, size) in [*counts.items(), ("sum", (trainable, total))]:
        lines.append(f"{part:<22}{learned:>16,}{size:>18,}{learned / max(1, size):>9.2%}")
    return "\n".join(lines)


def save_adapter(adapted: Any, folder: Path, base: Path, cameras: str) -> None:
    """Write a PEFT adapter folder that also says which base and camera mode it was trained for."""
    folder.mkdir(parents=True, exist_ok=True)
    adapted.save_pretrained(str(folder), safe_serialization=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base.name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card template says nothing about this adapter
    (folder / "alpamayo_mono.json").write_text(json.dumps({"base": base.name, "cameras": cameras}, indent=2) + "\n")


def adapter_facts(folder: Path) -> dict[str, Any]:
    """Base name, camera mode, rank and alpha of an adapter folder.

    Raises:
        MonoError: not an adapter folder.
    """
    path = folder / "adapter_config.json"
    if not path.is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise MonoError(
            f"{folder} holds no adapter",
            "adapter_config.json and adapter_model.safetensors",
            "give the adapter folder that `alpamayo-mono finetune` printed last",
        )
    config = json.loads(path.read_text())
    own = folder / "alpamayo_mono.json"
    facts: dict[str, Any] = json.loads(own.read_text()) if own.is_file() else {}
    return {**facts, "rank": config.get("r"), "alpha": config.get("lora_alpha")}


def load_adapter(model: nn.Module, folder: Path | str) -> nn.Module:
    """Load an adapter, prove that it changes each half, and merge it into the weights.

    Args:
        model: the base ``AlpamayoR1`` the adapter was trained on; changed in place.
        folder: a PEFT adapter folder.

    Returns:
        The same model with merged weights and no PEFT wrappers: serving then costs what the base costs.

    Raises:
        MonoError: not an adapter, shapes of another base, or an adapter that changes nothing.
    """
    peft = require("peft", "model")
    folder = Path(folder)
    facts = adapter_facts(folder)
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise MonoError(
            f"the adapter {folder} (trained on {facts.get('base', 'an unnamed base')}) does not fit this model: "
            + str(error).splitlines()[0],
            "the base model it was trained on",
            "give --model the base the adapter names",
        ) from error
    norms = dict(_delta_norms(model))
    adapted_halves = {part_of(name) for name in norms}
    still = [part for part in adapted_halves if not any(n > 0 for k, n in norms.items() if part_of(k) == part)]
    if not norms or still:
        raise MonoError(
            f"the adapter {folder} changes nothing in: {', '.join(still) or 'the whole model'}",
            "non-zero LoRA matrices in each part it names",
            "train it (an adapter saved before the first step is zero by construction)",
        )
    merged: nn.Module = wrapped.merge_and_unload()
    return merged


def _delta_norms(model: nn.Module) -> Iterator[tuple[str, float]]:
    """Norm of the weight update B A of each adapted layer, by layer name."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "lora_B"):
            for key in module.lora_A:
                delta = module.lora_B[key].weight @ module.lora_A[key].weight
                yield f"{name}.lora_B.{key}", float(torch.linalg.matrix_norm(delta.detach().float()))
