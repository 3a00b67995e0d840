"""What one pass over images and words leaves behind: features, keys and values, and where the expert continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class VisionFeatures:
    """Language-model tokens of images, in image order; cacheable while the vision tower is frozen.

    Attributes:
        embeds: (n, D) tokens.
        deepstack: per tapped vision layer (n, D), added after the first language-model layers.
    """

    embeds: Tensor
    deepstack: list[Tensor]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> VisionFeatures:
        """On another device or in another precision."""
        return VisionFeatures(self.embeds.to(device, dtype), [layer.to(device, dtype) for layer in self.deepstack])

    def split(self, counts: Sequence[int]) -> list[VisionFeatures]:
        """Consecutive groups of ``counts`` tokens each."""
        deep = [layer.split(list(counts)) for layer in self.deepstack]
        return [
            VisionFeatures(embeds, [layer[index] for layer in deep])
            for index, embeds in enumerate(self.embeds.split(list(counts)))
        ]

    @staticmethod
    def cat(parts: Sequence[VisionFeatures]) -> VisionFeatures:
        """Features of several groups as one."""
        deep = zip(*(part.deepstack for part in parts), strict=False)
        return VisionFeatures(torch.cat([part.embeds for part in parts]), [torch.cat(layers) for layers in deep])


@dataclass(frozen=True)
class PrefixCache:
    """A batch of prefixes, ready for text loss, decoding, and the action expert.

    Attributes:
        keys, values: per layer (B, kv heads, L, head_dim).
        filled: (B, L) bool, columns that hold a token of the row (right padding is false).
        visible: (B, L) bool, columns the expert attends to: the row up to its ``<|traj_future_start|>``.
        next_position: (B,) rotary position after the last token of the row.
        expert_position: (B,) rotary position of the expert's first token.
        hidden: (B, L, D) last hidden states; None after decoding.
        input_ids: (B, L).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    filled: Tensor
    visible: Tensor
    next_position: Tensor
    expert_position: Tensor
    hidden: Tensor | None
    input_ids: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def columns(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values per layer."""
        return list(zip(self.keys, self.values, strict=True))

    def detach(self) -> PrefixCache:
        """The same prefix through which no gradient flows (the expert alone learns)."""
        return replace(
            self,
            keys=tuple(key.detach() for key in self.keys),
            values=tuple(value.detach() for value in self.values),
            hidden=None if self.hidden is None else self.hidden.detach(),
        )


def join_draws(past: Tensor, new: Tensor, draws: int) -> Tensor:
    """Columns of a prefix before new ones, K draws sharing a row.

    Args:
        past: (B, heads, L, d); new: (B*K, heads, n, d).
        draws: K.

    Returns:
        (B*K, heads, L + n, d).
    """
    rows = new.unflatten(0, (past.shape[0], draws))
    repeated = past.to(new.dtype)[:, None].expand(-1, draws, -1, -1, -1)
    return torch.cat([repeated, rows], dim=3).flatten(0, 1)


class Columns:
    """Keys and values that a decoder sees without gradients, in buffers allocated once: kept columns, then new ones.

    New columns are written behind the kept ones, over what was new before, so a sampling loop cannot grow it.
    """

    def __init__(
        self, past: Sequence[tuple[Tensor, Tensor]], room: int, draws: int = 1, dtype: torch.dtype | None = None
    ) -> None:
        """Keep per layer what came before (B, heads, L, d), K draws sharing a row, with room for so many columns.

        ``dtype`` is that of the decoder that looks at it; None is the past's own.
        """
        self._kept = past[0][0].shape[2]

        def widen(kept: Tensor) -> Tensor:
            rows, heads, length, dim = kept.shape
            wide = kept.new_empty(rows * draws, heads, length + room, dim, dtype=dtype)
            wide.unflatten(0, (rows, draws))[:, :, :, :length] = kept[:, None]
            return wide

        self._layers = [(widen(keys), widen(values)) for keys, values in past]

    def keep(self, count: int) -> None:
        """Let the last columns written stay."""
        self._kept += count

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new columns (B*K, heads, n, d) and return everything up to them."""
        end = self._kept + keys.shape[2]
        seen = self._layers[layer][0][:, :, :end], self._layers[layer][1][:, :, :end]
        for buffer, new in zip(seen, (keys, values), strict=True):
            buffer[:, :, self._kept :] = new
        return seen

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All keys and all values kept, per layer."""
        keys, values = zip(*self._layers, strict=True)
        return tuple(k[:, :, : self._kept] for k in keys), tuple(v[:, :, : self._kept] for v in values)
