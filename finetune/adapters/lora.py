"""LoRA on both halves of Alpamayo-R1: where it goes, how it is saved, and the proof that it is there.

An adapter folder is a normal PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``). The two
action projections are small and carry the kart's units, so they train in full beside the LoRA matrices
(PEFT's ``modules_to_save``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collector.common.errors import MonoError, require
from collector.common.files import give_usual_mode
from finetune.adapters.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    OWN_FACTS,
    adapter_facts,
    check_belongs,
    write_checksum,
)
from finetune.adapters.settings import LoraSettings
from finetune.adapters.weights import AdapterWeights, PartChanges, to_tensor
from finetune.alpamayo.model import AlpamayoR1
from finetune.model_files.location import base_fingerprint, model_name
from finetune.model_files.weight_files import read_header

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
_PLACES = {
    "action projections": "action_(in|out)_proj",
    "action expert": r"expert\.",
    "vision tower": r".*\.visual\.",
    "language model": r".*\.language_model\.layers\.",
}


def add_lora(model: nn.Module, settings: LoraSettings) -> Any:
    """Freeze a base and add LoRA in place: an ``AlpamayoR1`` is itself the adapted model afterwards.

    The ``PeftModel`` around it is returned; it is needed for saving.

    Raises:
        MonoError: no part chosen, or a chosen part has no trainable parameter.
    """
    peft = require("peft", "model")
    parts = settings.parts()
    if not parts:
        found = "LoRA with every part switched off"
        raise MonoError(found, "the language model, the action expert, or both", "switch one on")
    pattern = "(?:" + "|".join(PART_PATTERNS[part] for part in parts) + ")"
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=pattern,
        modules_to_save=list(ACTION_PROJECTIONS) if settings.train_projections else None,
        bias="none",
    )
    adapted = peft.get_peft_model(model, config)
    refuse_parts_without_training(model, settings)
    return adapted


def go_on_from(adapted: Any, folder: Path) -> None:
    """Give what :func:`add_lora` returned the weights of an adapter that :meth:`LoraSettings.check_start` has passed.

    Raises:
        MonoError: it is of other parts, or not finite.
    """
    peft = require("peft", "model")
    stored, wanted = read_header(folder / ADAPTER_WEIGHTS), peft.get_peft_model_state_dict(adapted)
    shapes = [{name: tuple(each.shape) for name, each in of.items()} for of in (stored, wanted)]
    apart = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
    if apart:
        found = f"the adapter {folder} has {len(stored)} tensors, and not the same {apart[0]}"
        expected = f"the {len(wanted)} tensors that this run trains"
        raise MonoError(found, expected, "choose the parts to adapt that the adapter was trained with")
    with torch.no_grad():
        for name, value in wanted.items():
            values = to_tensor(stored[name].read(), stored[name].dtype, stored[name].shape)
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise MonoError(
                    f"the adapter {folder} holds NaN or infinity in {name}", "finite weights", "train again"
                )
            value.copy_(values)


def train_in_full(model: nn.Module, settings: LoraSettings) -> None:
    """Let every weight of the chosen parts train, the vocabulary and the head with the language model.

    Raises:
        MonoError: as :func:`add_lora`.
    """
    chosen = [*_chosen_parts(settings), *(["embeddings and norms"] if settings.adapt_language else [])]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in chosen)
    refuse_parts_without_training(model, settings)


def refuse_parts_without_training(model: nn.Module, settings: LoraSettings) -> None:
    """Look into the model whether every part that was asked for will train.

    Raises:
        MonoError: no part chosen, or one without a trainable parameter.
    """
    counts, parts = trainable_counts(model), _chosen_parts(settings)
    if not parts:
        found = "training with every part switched off"
        raise MonoError(found, "the language model, the action expert, or both", "switch one on")
    for part in parts:
        if counts[part][0] == 0:
            found = f"no trainable parameter in the {part}"
            do = "check that the model folder is an Alpamayo-R1 (its layer names decide what trains)"
            raise MonoError(found, "some in every chosen part", do)


def _chosen_parts(settings: LoraSettings) -> list[str]:
    return [*settings.parts(), *(["action projections"] if settings.train_projections else [])]


def part_of(parameter_name: str) -> str:
    """The part a parameter belongs to: one of the table's rows."""
    name = re.sub(r"\.(?:base_layer|lora_[AB]\.\w+|modules_to_save\.\w+|original_module)", "", parameter_name)
    name = name.removeprefix("base_model.model.")
    return next((part for part, place in _PLACES.items() if re.match(place, name)), "embeddings and norms")


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
    trainable, total = (sum(column) for column in zip(*counts.values(), strict=False))
    lines = [f"{'part':<22}{'trainable':>16}{'total':>18}{'share':>9}"]
    for part, (learned, size) in [*counts.items(), ("sum", (trainable, total))]:
        lines.append(f"{part:<22}{learned:>16,}{size:>18,}{learned / max(1, size):>9.2%}")
    return "\n".join(lines)


def save_adapter(adapted: Any, folder: Path, base: Path, cameras: str) -> None:
    """Write what :func:`add_lora` returned as a PEFT adapter folder that also says its base and camera mode.

    The base's fingerprint is written where there is such a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapted.save_pretrained(str(folder), safe_serialization=True)
    give_usual_mode(folder / ADAPTER_WEIGHTS)
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text())
    name = model_name(base)
    config["base_model_name_or_path"] = name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card template says nothing about this adapter
    facts = {"base": name, "cameras": cameras, "rank": config["r"], "alpha": config["lora_alpha"]}
    if base.is_dir():
        facts["base_fingerprint"] = base_fingerprint(base)
    (folder / OWN_FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    write_checksum(folder)


def load_adapter(
    model: AlpamayoR1, folder: Path | str, *, base: Path | None = None, cameras: str | None = None
) -> AlpamayoR1:
    """Put a PEFT adapter into the weights of its base, which is changed and returned, and prove that it is there.

    The weights stay plain ones: serving then costs what the base costs. ``base`` and ``cameras`` are as in
    :func:`finetune.adapters.folder.check_belongs`.

    Raises:
        MonoError: not an adapter, damaged, of another base or camera mode; or the weights of a part it names, or the
            model's answer to a fixed sample, are as they were. The model is then of no more use.
    """
    facts = adapter_facts(folder)
    check_belongs(facts, base, cameras)
    weights = {name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}
    adapter = AdapterWeights(facts, {name: tuple(value.shape) for name, value in weights.items()})
    before = fixed_answer(model)
    changes = PartChanges(facts.folder)
    with torch.no_grad():
        for name in adapter.names:
            changed = adapter.applied(name, weights[name])
            changes.add(part_of(name), weights[name], changed)
            weights[name].copy_(changed)
    changes.proven()
    after = fixed_answer(model)
    if not bool(torch.isfinite(after).all()) or torch.equal(before, after):
        found = f"with the adapter {facts.folder} the model answers a fixed sample " + (
            "exactly as without it" if torch.equal(before, after) else "with NaN"
        )
        raise MonoError(found, "another answer, in finite numbers", "train it longer, or use an earlier checkpoint")
    return model


@torch.no_grad()
def fixed_answer(model: AlpamayoR1) -> Tensor:
    """What a model makes of one fixed sample: the logits of the next word and one velocity, as one float32 vector.

    The sample is made from the model's own sizes, the smallest image and a few words, so that asking is cheap.
    """
    settings = model.settings
    vision = settings.vlm["vision_config"]
    side = 2 * vision["spatial_merge_size"]
    values = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    ramp = torch.linspace(-1.0, 1.0, side * side * values, device=model.device)
    grids = torch.tensor([[1, side, side]], device=model.device)
    features = model.encode_images((3.0 * ramp).sin().view(side * side, values), grids)
    bins = settings.history_token_start_idx + torch.arange(16) % settings.history_tokenizer.num_bins
    ids = torch.cat(
        [
            torch.tensor([settings.vlm["vision_start_token_id"]]),
            torch.full((len(features.embeds),), settings.vlm["image_token_id"]),
            torch.tensor([settings.vlm["vision_end_token_id"]]),
            bins,
            torch.tensor([settings.token_ids.future_start]),
        ]
    )[None].to(model.device)
    prefix = model.run_prefix(ids, torch.ones_like(ids), features, grids.cpu())
    waypoints = settings.action_space.n_waypoints
    x_t = torch.linspace(-1.0, 1.0, 2 * waypoints, device=model.device).view(1, waypoints, 2)
    velocity = model.velocity(prefix, x_t, torch.full((1,), 0.5, device=model.device))
    assert prefix.hidden is not None  # noqa: S101 - run_prefix leaves it, only decoding drops it
    return torch.cat([model.text_logits(prefix.hidden[0, -1]), velocity.flatten()])
