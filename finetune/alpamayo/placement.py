"""What need not lie on the card, and what may lie there packed.

While adapters train that is the vision tower, 1.07 GiB of the released model, once its features exist; and always its
1.19 GiB of embedding rows, of which a batch looks up a few hundred. On cards too small for 13 GiB of bfloat16 layers,
the language model's linear ones are packed in four bits (NF4): 6.9 of the released 11.1 billion weights.
Vision tower, vocabulary and action expert stay as they are, since waypoints are read off the expert directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from collector.common.errors import MonoError, require

_PACK = "nf4"


class HostEmbedding(nn.Module):
    """A frozen embedding whose rows stay in the computer's memory; those looked up travel to the card."""

    def __init__(self, embedding: nn.Embedding, device: torch.device) -> None:
        super().__init__()
        # Not a parameter, so that `model.to(device)` leaves it where it is; saving asks for it by name.
        self.rows = embedding.weight.detach().cpu()
        self.target = device

    @property
    def weight(self) -> Tensor:
        """All rows (V, D), on the CPU."""
        return self.rows

    def forward(self, ids: Tensor) -> Tensor:
        """(...,) ids on any device to (..., D) on the card."""
        unique, places = ids.unique(return_inverse=True)
        return self.rows[unique.cpu()].to(self.target)[places.to(self.target)]


def place_on_card(model: Any, device: torch.device, *, four_bits: bool = False, vision_on_card: bool = False) -> None:
    """Bring to the card what is computed with there, and leave the rest in the computer's memory.

    A model loaded to the CPU never needs more of the card than what stays on it: a card of 12 GB takes the released
    model in four bits. It is an ``AlpamayoR1`` without adapters, changed in place. Image
    features must exist already unless ``vision_on_card``.
    """
    language = model.vlm.model.language_model
    if isinstance(language.embed_tokens, nn.Embedding):
        language.embed_tokens = HostEmbedding(language.embed_tokens, device)
    model.vlm.model.visual.to(device if vision_on_card else "cpu")
    if four_bits:
        quantise_language_model(model, device)
    for part in (
        language.layers,
        language.norm,
        language.rotary_emb,
        model.vlm.lm_head,
        model.expert,
        model.action_in_proj,
        model.action_out_proj,
        model.action_space,
    ):
        part.to(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_packed(linear: Any) -> bool:
    """Whether a layer is one of those that :func:`quantise_language_model` makes."""
    return getattr(linear, "quant_type", None) == _PACK


def quantise_language_model(model: Any, device: torch.device | str = "cuda") -> int:
    """Pack the language model's linear layers, one after the other, on their way to the card; how many were packed.

    The model has no adapters yet and is changed in place; what is packed already or is not packed stays where it is.

    Raises:
        MonoError: bitsandbytes is missing, or adapters are already in place.
    """
    bitsandbytes = require("bitsandbytes", "gpu")
    decoder = model.vlm.model.language_model.layers
    layers = [(name, layer) for name, layer in decoder.named_modules() if isinstance(layer, nn.Linear)]
    found = [(name, layer) for name, layer in layers if not is_packed(layer)]
    if any("base_layer" in name for name, _ in layers):
        raise MonoError("a model with adapters", "a base model", "pack first, then add LoRA")
    for name, layer in tqdm(found, desc="pack in 4 bits", unit="layer", dynamic_ncols=True, disable=not found):
        packed = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            compress_statistics=True,
            quant_type=_PACK,
            device="meta",
        )
        packed.quant_type = _PACK
        # On CPUs that multiply bfloat16 themselves it would lay the weights out anew in its first pass: in steps of 32
        # rows, which not every matrix has, and as nothing else reads them.
        packed.support_avx512bf16_for_cpu = False
        # Moving the parameter to the card is what packs it.
        packed.weight = bitsandbytes.nn.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=True, quant_type=_PACK, module=packed
        ).to(device)
        if layer.bias is not None:
            packed.bias = nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, packed)
        layer.weight = None  # type: ignore[assignment]
    return len(found)
