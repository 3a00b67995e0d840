"""An adapter folder before any of it is loaded: what it says of itself, what it holds, and whether both belong here.

A normal PEFT LoRA adapter (``adapter_config.json``, ``adapter_model.safetensors``) and beside it our own
``alpamayo_mono.json`` with the base and the camera mode it was trained for. PEFT skips silently over tensors it does
not know and over layers that have none; here both are errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from collector.common.errors import MonoError
from finetune.model_files.configuration_files import read_json
from finetune.model_files.location import base_fingerprint, model_name
from finetune.model_files.weight_files import StoredTensor, read_header

ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_FACTS = "adapter_config.json", "adapter_model.safetensors", "alpamayo_mono.json"
_KEY = re.compile(r"base_model\.model\.(?P<name>.+)")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
# Settings of PEFT that change what the two matrices mean.
_UNKNOWN_MATHS = (
    "use_dora", "use_qalora", "use_bdlora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias",
    "layer_replication", "layers_to_transform", "target_parameters", "trainable_token_indices",
)  # fmt: skip
_NAMED = 3
_COPY = "copy the adapter folder again"


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter says of itself."""

    folder: Path  # where it is
    base: str  # name of the model it was trained on; empty where nobody wrote it
    base_fingerprint: str  # the same model's
    cameras: str  # camera mode it was trained for, empty where nobody wrote it
    rank: int  # of its LoRA matrices
    alpha: float  # of its LoRA matrices
    scale: float  # factor of the update B A
    targets: str | tuple[str, ...]  # PEFT's target modules, a pattern or the ends of names
    full_modules: tuple[str, ...]  # modules whose weights it replaces


def adapter_facts(folder: Path | str) -> AdapterFacts:
    """Read what an adapter folder says of itself (MonoError: it is none, or of a kind that is not known here)."""
    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / ADAPTER_WEIGHTS).is_file():
        found, expected = f"{folder} holds no adapter", f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
        raise MonoError(found, expected, "give the adapter folder that `alpamayo-mono finetune` printed last")
    config = read_json(folder / ADAPTER_CONFIG, _COPY)
    own = read_json(folder / OWN_FACTS, _COPY) if (folder / OWN_FACTS).is_file() else {}
    strange = [key for key in _UNKNOWN_MATHS if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or strange:
        kind = ", ".join(strange) or f"bias {config.get('bias')!r}"
        found = f"the adapter {folder} is a {config.get('peft_type')} adapter with {kind}"
        raise MonoError(found, "plain LoRA without biases", "train it with `alpamayo-mono finetune`")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        found = f"{folder / ADAPTER_CONFIG} says rank {rank!r} and alpha {alpha!r}"
        raise MonoError(found, "two numbers, rank at least 1", "save the adapter again")
    for key, value in (("rank", rank), ("alpha", alpha)):
        if own.get(key, value) != value:
            found = (
                f"the adapter {folder} was trained with {key} {own[key]} ({OWN_FACTS}), but {ADAPTER_CONFIG} says "
                f"{key} {value}"
            )
            raise MonoError(found, "one and the same", "take both files from one training run")
    targets = config.get("target_modules") or ()
    return AdapterFacts(
        folder=folder,
        base=str(own.get("base") or config.get("base_model_name_or_path") or ""),
        base_fingerprint=str(own.get("base_fingerprint") or ""),
        cameras=str(own.get("cameras") or ""),
        rank=rank,
        alpha=alpha,
        scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        targets=targets if isinstance(targets, str) else tuple(targets),
        full_modules=tuple(config.get("modules_to_save") or ()),
    )


def check_belongs(facts: AdapterFacts, base: Path | None = None, cameras: str | None = None) -> None:
    """Refuse an adapter of another base or camera mode; None where there is no such folder, or where nobody drives.

    Raises:
        MonoError: with both names. A base is told by its fingerprint; an adapter saved without one by its name.
    """
    if cameras is not None and facts.cameras not in ("", cameras):
        raise MonoError(
            f"the adapter {facts.folder} was trained for the cameras {facts.cameras!r} and is asked to drive with "
            f"{cameras!r}",
            "the mode it was trained for",
            f"drive it with the cameras {facts.cameras}, or give another adapter",
        )
    if base is None:
        return
    name = model_name(base)
    if facts.base_fingerprint:
        found = base_fingerprint(base)
        if found != facts.base_fingerprint:
            raise MonoError(
                f"the adapter {facts.folder} was trained on {facts.base} ({facts.base_fingerprint[:12]}), and this "
                f"model is {name} ({found[:12]})",
                "the very weights it was trained on",
                # The shipped base changes between versions under one name.
                f"give --model the {facts.base} of the version that trained it, or train again on this one"
                if Path(facts.base).name == Path(name).name
                else f"give --model the folder or id of {facts.base}",
            )
    elif facts.base and Path(facts.base).name != Path(name).name:
        what = f"the adapter {facts.folder} was trained on {facts.base}, and this model is {name}"
        raise MonoError(what, "the base it was trained on", f"give --model the folder or id of {facts.base}")


def adapter_layout(
    facts: AdapterFacts, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[StoredTensor, StoredTensor]], dict[str, StoredTensor]]:
    """What the adapter's file holds, checked against the model to change (parameter -> shape, constants included).

    Returns weight -> its matrices A and B, and parameter -> its new value.

    Raises:
        MonoError: a damaged file; tensors that are missing, surplus, of another rank, or of another model's shape.
    """
    path = facts.folder / ADAPTER_WEIGHTS
    halves: dict[str, dict[str, StoredTensor]] = {}
    full: dict[str, StoredTensor] = {}
    surplus: list[str] = []
    for key, tensor in read_header(path).items():
        name = match["name"] if (match := _KEY.fullmatch(key)) else ""
        if lora := _LORA.fullmatch(name):
            halves.setdefault(lora["module"], {})[lora["half"]] = tensor
        elif name in shapes and _is_within(name, facts.full_modules):
            full[name] = tensor
        elif not _is_constant(name):
            surplus.append(key)
    missing = [
        f"lora_{half} of {module}"
        for module in _targets(facts, shapes) | halves.keys()
        for half in "AB"
        if half not in halves.get(module, {})
    ]
    missing += [
        name for name in shapes if _is_within(name, facts.full_modules) and not _is_constant(name) and name not in full
    ]
    surplus += [f"LoRA of {module}" for module in halves if len(shapes.get(f"{module}.weight", ())) != 2]
    _refuse(facts, "lacks", sorted(missing), "every layer it names adapted")
    _refuse(facts, "holds what this model has no place for:", surplus, "tensors of the layers it names")
    wrong: list[str] = []
    pairs: dict[str, tuple[StoredTensor, StoredTensor]] = {}
    for module, pair in halves.items():
        weight = f"{module}.weight"
        down, up = pairs[weight] = pair["A"], pair["B"]
        rows, columns = shapes[weight]
        if {down.shape[0], up.shape[-1]} != {facts.rank}:
            found = (
                f"the adapter {facts.folder} says rank {facts.rank}, and {module} has rank {down.shape[0]} and "
                f"{up.shape[-1]}"
            )
            raise MonoError(found, "one and the same", "take both files from one training run")
        if (up.shape[0], down.shape[-1]) != (rows, columns):
            wrong.append(f"{module} is {up.shape[0]} x {down.shape[-1]} instead of {rows} x {columns}")
    wrong += [
        f"{name} is {tensor.shape} instead of {shapes[name]}"
        for name, tensor in full.items()
        if tensor.shape != shapes[name]
    ]
    if wrong:
        found = (
            f"the adapter {facts.folder} (trained on {facts.base or 'an unnamed base'}) does not fit this model: "
            + wrong[0]
        )
        raise MonoError(found, "the base model it was trained on", "give --model the base the adapter names")
    return pairs, full


def _targets(facts: AdapterFacts, shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The layers PEFT adapts for these settings: a pattern means the whole name, a list means its end."""
    linear = [
        name.removesuffix(".weight") for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2
    ]
    if isinstance(facts.targets, str):
        if facts.targets == "all-linear":
            return set()
        pattern = re.compile(facts.targets)
        return {name for name in linear if pattern.fullmatch(name)}
    return {name for name in linear if any(f".{name}".endswith(f".{end}") for end in facts.targets)}


def _is_within(name: str, modules: tuple[str, ...]) -> bool:
    return any(f".{module}." in f".{name}" for module in modules)


def _is_constant(name: str) -> bool:
    """Fourier frequencies ride along with a fully trained projection; they are made from the configuration."""
    return name.endswith(".freqs")


def _refuse(facts: AdapterFacts, verb: str, names: list[str], expected: str) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise MonoError(
            f"the adapter {facts.folder} (trained on {facts.base or 'an unnamed base'}) {verb} "
            f"{', '.join(names[:_NAMED])}{more}",
            expected,
            "copy the whole adapter folder again, and give --model the base it was trained on",
        )
