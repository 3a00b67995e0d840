"""The language model in four bits (NF4), for cards on which its 13 GiB of bfloat16 layers do not fit.

Only the linear layers of the language model's decoder are packed: 6.9 of the released 11.1 billion weights. Vision
tower, vocabulary and action expert stay as they are, since waypoints are read off the expert directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from collector.common.errors import MonoError, require


def quantise_language_model(model: Any, device: torch.device | str = "cuda") -> int:
    """Pack the language model's linear layers, one after the other, on their way to the card.

    Args:
        model: an ``AlpamayoR1`` without adapters, on the CPU or the card; changed in place.
        device: where packed weights live; everything else stays where it is.

    Returns:
        How many layers were packed.

    Raises:
        MonoError: bitsandbytes is missing, or adapters are already in place.
    """
    bitsandbytes = require("bitsandbytes", "gpu")
    decoder = model.vlm.model.language_model.layers
    found = [(name, layer) for name, layer in decoder.named_modules() if isinstance(layer, nn.Linear)]
    if any("base_layer" in name for name, _ in found):
        raise MonoError("a model with adapters", "a base model", "pack first, then add LoRA")
    for name, layer in tqdm(found, desc="pack in 4 bits", unit="layer", dynamic_ncols=True):
        packed = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        # Moving the parameter to the card is what packs it.
        packed.weight = bitsandbytes.nn.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=packed
        ).to(device)
        if layer.bias is not None:
            packed.bias = nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, packed)
        layer.weight = None  # type: ignore[assignment]
    return len(found)
