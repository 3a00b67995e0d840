"""What need not lie on the card while adapters train: the vision tower once its features exist, and the words.

Both are frozen: 1.07 GiB of vision tower and 1.19 GiB of embedding rows of the released model, of which a batch looks
up a few hundred.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class HostEmbedding(nn.Module):
    """A frozen embedding whose rows stay in the computer's memory; those looked up travel to the card.

    Args:
        embedding: the layer it stands for; its weight is moved.
        device: where looked-up rows go.
    """

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


def clear_card(model: Any, device: torch.device) -> None:
    """Move off the card what a training step does not compute with; the vision features must exist already.

    Args:
        model: an ``AlpamayoR1`` whose vision tower and embeddings are frozen; changed in place.
        device: the card.
    """
    model.vlm.model.visual.to("cpu")
    language = model.vlm.model.language_model
    if isinstance(language.embed_tokens, nn.Embedding):
        language.embed_tokens = HostEmbedding(language.embed_tokens, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
