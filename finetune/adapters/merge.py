"""Base and adapter into one full checkpoint in the official layout, which the reference code and its serving ask for.

    alpamayo-mono merge --model nvidia/Alpamayo-R1-10B --adapter runs/finetune/adapter --out merged

Tensor by tensor from file to file: untouched ones are copied byte by byte, adapted ones computed in float32 and rounded
once. So the result has exactly the base's tensors, and 22 GB pass through the memory of the largest of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from tqdm import tqdm

from collector.common.arguments import OUT, Arguments, argument
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.output_folder import OutputFolder, refuse_inside
from collector.common.replacement import Replacement, settle
from finetune.adapters.folder import AdapterFacts, adapter_facts, check_belongs
from finetune.alpamayo.configuration import CONFIG_FILE
from finetune.model_files.configuration_files import read_config
from finetune.model_files.location import base_fingerprint, model_name, resolve_model
from finetune.model_files.weight_files import (
    INDEX_FILE,
    WEIGHTS_FILE,
    StoredTensor,
    stored_tensors,
    tensor_bytes,
    write_weights,
)

_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_FLOATS = ("F64", "F32", "F16", "BF16")
_GIB = 1 << 30
MERGE_FACTS = "alpamayo_mono_merge.json"
# The base's own story and its weights in other formats do not belong to the merged model.
_LEFT_BEHIND = ("README.md", INDEX_FILE, CONFIG_FILE, MERGE_FACTS)
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


@dataclass(frozen=True)
class MergeConfig(Arguments):
    """Write base and adapter as one full checkpoint in the official layout."""

    model: Path  # base model, a folder in the official layout or its id on the Hugging Face hub.
    adapter: Path  # adapter folder (what finetune wrote to OUT/adapter).
    out: Annotated[Path, OUT]  # folder to make; one that holds anything is refused.
    # of the written weights; "base" keeps each tensor's own type. Weights in bfloat16 are rounded once more than those
    # of base and adapter driven in float32, as on a CPU; float32 gives the very same plans.
    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    shard_gib: float = argument(5.0, "weights beyond this size are cut into shards with an index", 1e-06, 10000.0)


def merge(config: MergeConfig) -> dict[str, Any]:
    """Write the merged checkpoint; its folder appears under its name only when it is complete.

    Returns what is written to ``alpamayo_mono_merge.json``: base, adapter, and how far each part was moved.

    Raises:
        MonoError: no model, no adapter, one of another base, a damaged one, one that changes nothing; a folder that is
            in use, or a disk that is too small.
    """
    base = resolve_model(config.model)
    with OutputFolder(config.out) as out:
        settle(out.path, is_held=True)
        out.require_empty("a new folder", "choose another --out; nothing was changed")
        return _merge(config, base, out)


def _merge(config: MergeConfig, base: Path, out: OutputFolder) -> dict[str, Any]:
    read_config(base)
    facts = adapter_facts(config.adapter)
    check_belongs(facts, base)
    refuse_inside(config)
    stored = stored_tensors(base)
    tensors = {name: (_type_in(tensor, config.dtype), tensor.shape) for name, tensor in stored.items()}
    total = sum(tensor_bytes(*tensor) for tensor in tensors.values())
    free = shutil.disk_usage(out.path).free
    if free < total:
        found = f"{free / 1e6:,.0f} MB are free in {out.path}"
        raise MonoError(found, f"{total / 1e6:,.0f} MB for the merged weights", "free some, or choose another --out")
    replacement = Replacement(out, ())
    part = replacement.new
    try:
        moved = _write_weights(part, stored, tensors, facts, int(config.shard_gib * _GIB))
        _write_rest(part, base, config.dtype)
        record = {
            "base": model_name(base),
            "base_fingerprint": base_fingerprint(base),
            "adapter": str(config.adapter),
            "cameras": facts.cameras,
            "rank": facts.rank,
            "alpha": facts.alpha,
            "dtype": config.dtype,
            "weight_change": moved,
        }
        (part / MERGE_FACTS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        replacement.swap()
    except BaseException:
        replacement.discard()
        raise
    return record


def _type_in(tensor: StoredTensor, dtype: str) -> str:
    return tensor.dtype if dtype == "base" or tensor.dtype not in _FLOATS else _TYPES[dtype]


def shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names of tensors cut into groups of at most ``limit`` bytes, in order; a larger tensor is a group of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _write_weights(
    folder: Path,
    stored: Mapping[str, StoredTensor],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    facts: AdapterFacts,
    limit: int,
) -> dict[str, float]:
    """Write all shards and their index; returns the norm of the change per part."""
    from finetune.adapters.lora import part_of
    from finetune.adapters.weights import TORCH_TYPES, AdapterWeights, PartChanges, to_bytes, to_tensor

    adapter = AdapterWeights(facts, {name: tensor.shape for name, tensor in stored.items()})
    adapted, changes = set(adapter.names), PartChanges(facts.folder)
    bar = tqdm(total=sum(tensor_bytes(*t) for t in tensors.values()), desc="merge", unit="B", unit_scale=True)

    def contents(names: Sequence[str]) -> Iterator[NDArray[Any]]:
        for name in names:
            tensor, (dtype, shape) = stored[name], tensors[name]
            content = tensor.read()
            if name in adapted or dtype != tensor.dtype:
                weight = to_tensor(content, tensor.dtype, shape)
                written = weight.to(TORCH_TYPES[dtype])
                if name in adapted:
                    unchanged, written = written, adapter.applied(name, weight, written.dtype)
                    changes.add(part_of(name), unchanged, written)
                content = to_bytes(written)
            yield content
            bar.update(content.nbytes)

    groups = shards({name: tensor_bytes(*tensor) for name, tensor in tensors.items()}, limit)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = WEIGHTS_FILE
        if len(groups) > 1:
            file = f"{WEIGHTS_FILE.removesuffix('.safetensors')}-{number:05d}-of-{len(groups):05d}.safetensors"
        write_weights(folder / file, [(name, *tensors[name]) for name in names], contents(names))
        weight_map.update(dict.fromkeys(names, file))
    bar.close()
    if len(groups) > 1:
        total = sum(tensor_bytes(*tensor) for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return changes.proven()


def _write_rest(folder: Path, base: Path, dtype: str) -> None:
    """Configuration, tokenizer, licences and whatever else lies beside the base's weights."""
    text = (base / CONFIG_FILE).read_text(encoding="utf-8")
    if dtype != "base":
        raw = json.loads(text)
        raw.update({key: dtype for key in ("dtype", "torch_dtype", "model_dtype") if key in raw})
        text = json.dumps(raw, indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    for entry in sorted(base.iterdir()):
        unwanted = entry.name.startswith(".") or entry.name in _LEFT_BEHIND or entry.suffix in _WEIGHT_SUFFIXES
        if entry.is_file() and not unwanted:
            shutil.copyfile(entry, folder / entry.name)  # follows the links of the hub's cache


def main(argv: Sequence[str] | None = None) -> None:
    """``alpamayo-mono merge``."""
    config = command_line(MergeConfig, argv, "alpamayo-mono merge")
    record = merge(config)
    for part, change in record["weight_change"].items():
        print(f"{part}: weights moved by {change:.4g}")
    print(f"merged model: {config.out}")
