"""Write a checkpoint of the released sizes with random weights, to see whether a card and a disk can take it.

    python benchmarks/random_checkpoint.py FOLDER [--layers 36] [--device cuda]

22 GB in the official layout (sharded safetensors, bfloat16, a vocabulary of the released size), some two minutes on a
CPU and seconds on a GPU. `alpamayo-mono finetune --model FOLDER` then costs what the real weights cost; what the model
says and where it drives is noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SHARD_BYTES = 4 * 2**30
# Ids below are Qwen's words, whose text matters to nobody here.
FIRST_SPECIAL = 151643


def released_tokenizer() -> Any:
    """A byte-level vocabulary with Qwen's and Alpamayo's special words at their released ids."""
    import tokenizers

    from benchmarks.tiny_base.architecture import QWEN_SPECIALS
    from finetune.processing.tokenizer import Tokenizer

    bytes_ = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = bytes_ + [f"filler{index}" for index in range(FIRST_SPECIAL - len(bytes_))]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({word: index for index, word in enumerate(words)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    names = (
        list(QWEN_SPECIALS[:3])
        + [f"<|qwen_{index}|>" for index in range(5)]
        + ["<|quad_end|>", *QWEN_SPECIALS[3:], *(f"<|qwen_more_{index}|>" for index in range(12))]
    )
    added = [tokenizers.AddedToken(name, normalized=False, special=True) for name in names]
    backend.add_special_tokens(added)
    return Tokenizer(backend).extend()


def random_tensors(config: Any, device: str, dtype: Any) -> Iterator[tuple[str, Any]]:
    """Name and random tensor of everything in a model's state, one at a time."""
    import torch

    from finetune.alpamayo.model import AlpamayoR1

    with torch.device("meta"):
        model = AlpamayoR1(config)
    constants = dict(AlpamayoR1(small(config)).named_buffers())
    generator = torch.Generator(device).manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name in constants:
            yield name, constants[name].to(device)
        elif "norm" in name and name.endswith("weight"):
            yield name, torch.ones(tensor.shape, dtype=dtype, device=device)
        else:
            value = torch.empty(tensor.shape, dtype=dtype, device=device)
            yield name, value.normal_(0.0, 0.02, generator=generator)


def small(config: Any) -> Any:
    """The configuration with one narrow layer of everything: its constants are those of the large one."""
    text = {
        **config.vlm["text_config"],
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "vocab_size": 8,
        "num_attention_heads": 8,
    }
    vision = {
        **config.vlm["vision_config"],
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "out_hidden_size": 32,
        "num_heads": 1,
        "deepstack_visual_indexes": [0],
    }
    narrow = replace(config.expert, hidden_size=32, intermediate_size=32, num_attention_heads=8)
    return replace(config, vlm={**config.vlm, "text_config": text, "vision_config": vision}, expert=narrow)


def main() -> None:
    """Write the folder."""
    import torch
    from safetensors.torch import save_file
    from tqdm import tqdm

    from benchmarks.tiny_base.new_model import fit_vocabulary, official_config
    from finetune.alpamayo.configuration import CONFIG_FILE, VLM_CONFIG_FILE, AlpamayoConfig
    from finetune.model_files.configuration_files import official_vlm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=36, help="of the language model and the expert; fewer for a look")
    parser.add_argument("--device", default="cpu", help="where random numbers are drawn")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True)
    tokenizer = released_tokenizer()
    config = fit_vocabulary(AlpamayoConfig(), tokenizer)
    vlm = {**config.vlm, "text_config": {**config.vlm["text_config"], "num_hidden_layers": arguments.layers}}
    config = replace(config, vlm=vlm)

    shards: list[dict[str, Any]] = [{}]
    index: dict[str, str] = {}
    total = held = 0

    def write() -> None:
        name = f"model-{len(shards):05d}.safetensors"
        save_file(shards[-1], str(folder / name), metadata={"format": "pt"})
        index.update(dict.fromkeys(shards[-1], name))
        shards[-1] = {}

    for name, tensor in tqdm(random_tensors(config, arguments.device, torch.bfloat16), unit="tensor"):
        size = tensor.numel() * tensor.element_size()
        if held + size > SHARD_BYTES:
            write()
            shards.append({})
            held = 0
        shards[-1][name] = tensor.cpu()
        held, total = held + size, total + size
    write()
    listing = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2) + "\n")
    (folder / CONFIG_FILE).write_text(json.dumps(official_config(config), indent=2) + "\n")
    (folder / VLM_CONFIG_FILE).write_text(json.dumps(official_vlm(config), indent=2) + "\n")
    tokenizer.save(folder)
    print(f"{folder}: {total / 1e9:.1f} GB in {len(shards)} shards, {len(tokenizer)} words")


if __name__ == "__main__":
    main()
