"""An adapter folder before any of it is loaded: what it says of itself, what it holds, and whether both belong here.

A normal PEFT LoRA adapter (``adapter_config.json``, ``adapter_model.safetensors``) and beside it our own
``alpamayo_mono.json`` with the base and the camera mode it was trained for. PEFT skips silently over tensors it does
not know and over layers that have none; here both are errors.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError, require
from collector.common.run_folder import hash_path
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
# What of a configuration decides the weights; PEFT and the hub rewrite the rest.
_MATHS = ("peft_type", "r", "lora_alpha", "use_rslora", "bias", "target_modules", "modules_to_save", *_UNKNOWN_MATHS)
_TRUTHS = (True, False, None)
_CHECKSUM = "checksum"
# A list of names, a name or a pattern beyond these is no layer's, and looking for it would not end.
_MOST_NAMES, _LONGEST_NAME, _PATTERN_S = 2000, 5000, 2.0
_NAMED = 3
_COPY = "copy the adapter folder again"


@dataclass(frozen=True)
class _Scale(Arguments):
    """The numbers of a LoRA adapter."""

    rank: int = argument(1, "rank of the LoRA matrices", 1, 65_536)
    alpha: float = argument(1.0, "the LoRA update is scaled by alpha / rank", 1e-6, 1e6)


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
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    try:
        _Scale(rank, alpha)
    except MonoError as error:
        found = f"{folder / ADAPTER_CONFIG} says rank {rank!r} and alpha {alpha!r}"
        raise MonoError(found, f"two numbers, {error.expected.partition(', ')[2]}", _COPY) from error
    for key, value in (("rank", rank), ("alpha", alpha)):
        if own.get(key, value) != value:
            found = (
                f"the adapter {folder} was trained with {key} {own[key]} ({OWN_FACTS}), but {ADAPTER_CONFIG} says "
                f"{key} {value}"
            )
            raise MonoError(found, "one and the same", "take both files from one training run")
    told = [config.get("base_model_name_or_path"), *(own.get(key) for key in ("base", "base_fingerprint", "cameras"))]
    if not all(isinstance(value, str) or value is None for value in told) or config.get("use_rslora") not in _TRUTHS:
        found = f"{folder} says of itself what are no words: {told!r}, use_rslora {config.get('use_rslora')!r}"
        raise MonoError(found, "names, and true or false", _COPY)
    targets = _names(folder, config, "target_modules")
    return AdapterFacts(
        folder=folder,
        base=str(own.get("base") or config.get("base_model_name_or_path") or ""),
        base_fingerprint=str(own.get("base_fingerprint") or ""),
        cameras=str(own.get("cameras") or ""),
        rank=rank,
        alpha=alpha,
        scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        targets=targets,
        full_modules=_full_modules(folder, config),
    )


def _names(folder: Path, config: Mapping[str, Any], key: str) -> str | tuple[str, ...]:
    value = config.get(key) or ()
    names = [value] if isinstance(value, str) else value
    fits = isinstance(names, (list, tuple)) and len(names) <= _MOST_NAMES
    if not fits or not all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in names):
        expected = f"at most {_MOST_NAMES} names of at most {_LONGEST_NAME} characters"
        raise MonoError(f"{folder / ADAPTER_CONFIG} names no layers with its {key}", expected, _COPY)
    return value if isinstance(value, str) else tuple(names)


def _full_modules(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    names = _names(folder, config, "modules_to_save")
    return (names,) if isinstance(names, str) else names


def checksum(folder: Path) -> str:
    """SHA-256 over an adapter's weights, what decides their meaning, and what it says of base and cameras."""
    config, own = (read_json(folder / name, _COPY) for name in (ADAPTER_CONFIG, OWN_FACTS))
    told = [{key: config.get(key) for key in _MATHS}, {key: own[key] for key in own if key != _CHECKSUM}]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(str(hash_path(folder / ADAPTER_WEIGHTS)).encode())
    return digest.hexdigest()


def write_checksum(folder: Path) -> None:
    """Put its checksum into an adapter folder that is otherwise finished."""
    path = folder / OWN_FACTS
    path.write_text(json.dumps(read_json(path) | {_CHECKSUM: checksum(folder)}, indent=2) + "\n", encoding="utf-8")


def check_whole(folder: Path) -> None:
    """Refuse an adapter that is not as it was saved; one without a checksum is taken, which is said once.

    Raises:
        MonoError: its weights or its settings have changed since.
    """
    own = read_json(folder / OWN_FACTS, _COPY) if (folder / OWN_FACTS).is_file() else {}
    if _CHECKSUM not in own:
        _say_unchecked(folder)
    elif own[_CHECKSUM] != checksum(folder):
        found = f"the adapter {folder} is not as it was saved: {ADAPTER_WEIGHTS} or what it says of itself has changed"
        raise MonoError(found, f"the checksum in {OWN_FACTS}", _COPY)


@functools.lru_cache
def _say_unchecked(folder: Path) -> None:
    print(
        f"{folder} has no checksum (adapters of before 0.3 have none): whether it is damaged cannot be told",
        file=sys.stderr,
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
        MonoError: a damaged file; tensors that are missing, surplus, of another rank, or of another model's shape; an
            adapter that is not as it was saved.
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
        if not len(down.shape) == len(up.shape) == 2:
            wrong.append(f"{module} is of {down.shape} and {up.shape} instead of two matrices")
        elif {down.shape[0], up.shape[-1]} != {facts.rank}:
            found = (
                f"the adapter {facts.folder} says rank {facts.rank}, and {module} has rank {down.shape[0]} and "
                f"{up.shape[-1]}"
            )
            raise MonoError(found, "one and the same", "take both files from one training run")
        elif (up.shape[0], down.shape[-1]) != (rows, columns):
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
    check_whole(facts.folder)
    return pairs, full


def _targets(facts: AdapterFacts, shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The layers PEFT adapts for these settings: a pattern means the whole name, a list means its end."""
    linear = [
        name.removesuffix(".weight") for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2
    ]
    if isinstance(facts.targets, str):
        if facts.targets == "all-linear":
            return set()
        return _matching(facts, facts.targets, linear)
    return {name for name in linear if any(f".{name}".endswith(f".{end}") for end in facts.targets)}


def _matching(facts: AdapterFacts, pattern: str, names: list[str]) -> set[str]:
    """The names that fit a pattern, by a matcher that knows when to give up."""
    regex = require("regex", "model")
    found = f"{facts.folder / ADAPTER_CONFIG} names its layers by a pattern"
    try:
        compiled = regex.compile(pattern)
        deadline_s = time.monotonic() + _PATTERN_S
        return {name for name in names if compiled.fullmatch(name, timeout=max(0.01, deadline_s - time.monotonic()))}
    except TimeoutError as error:
        raise MonoError(f"{found} whose matching does not end", "the pattern that PEFT saved", _COPY) from error
    except (regex.error, RecursionError, MemoryError, OverflowError) as error:
        raise MonoError(f"{found} that is none ({error})", "the pattern that PEFT saved", _COPY) from error


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
