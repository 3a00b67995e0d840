"""What one pass over images and words leaves behind: features, keys and values, and where the expert continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


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

    def with_words(
        self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], filled: Tensor, position: Tensor, input_ids: Tensor
    ) -> PrefixCache:
        """The prefix after the reasoning was written behind it: the expert sees all of it and drives on from there."""
        return replace(
            self,
            keys=keys,
            values=values,
            filled=filled,
            visible=filled,
            next_position=position,
            expert_position=position,
            hidden=None,
            input_ids=input_ids,
        )

    def rows(self, chosen: Tensor) -> PrefixCache:
        """Some of the rows (n,), in this order."""
        names = ("filled", "visible", "next_position", "expert_position", "input_ids")
        return replace(
            self,
            keys=tuple(key[chosen] for key in self.keys),
            values=tuple(value[chosen] for value in self.values),
            hidden=None if self.hidden is None else self.hidden[chosen],
            **{name: getattr(self, name)[chosen] for name in names},
        )

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


# Of one layer: where to write new keys and values (B*K, n, heads, d), and all keys and values seen (B*K, heads, L, d).
LayerColumns = tuple[Tensor, Tensor, Tensor, Tensor]


class Columns:
    """Keys and values that a decoder sees without gradients, in one buffer: kept columns, then new ones.

    New columns are written behind the kept ones, over what was new before, so a sampling loop cannot grow it.
    """

    def __init__(
        self, past: Sequence[tuple[Tensor, Tensor]], room: int, draws: int = 1, dtype: torch.dtype | None = None
    ) -> None:
        """Keep per layer what came before (B, heads, L, d), K draws sharing a row, with room for so many columns.

        ``dtype`` is that of the decoder that looks at it; None is the past's own.
        """
        rows, heads, self._kept, dim = past[0][0].shape
        size = (len(past), 2, rows, draws, heads, self._kept + room, dim)
        buffer = past[0][0].new_empty(size, dtype=dtype)
        for layer, pair in zip(buffer, past, strict=True):
            for wide, kept in zip(layer, pair, strict=True):
                wide[:, :, :, : self._kept] = kept[:, None]
        self._buffer = buffer.flatten(2, 3)

    def open(self, count: int) -> list[LayerColumns]:
        """Per layer the places of so many new columns, and everything up to them."""
        lacking = self._kept + count - self._buffer.shape[-2]
        if lacking > 0:
            self._buffer = functional.pad(self._buffer, (0, 0, 0, lacking + self._buffer.shape[-2] // 4))
        new = self._buffer[..., self._kept : self._kept + count, :].transpose(3, 4).flatten(0, 1).unbind()
        seen = self._buffer[..., : self._kept + count, :].flatten(0, 1).unbind()
        return [(*new[at : at + 2], *seen[at : at + 2]) for at in range(0, len(new), 2)]  # type: ignore[misc]

    def keep(self, count: int) -> None:
        """Let the first columns last opened stay."""
        self._kept += count

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All keys and all values kept, per layer."""
        keys, values = self._buffer[..., : self._kept, :].unbind(1)
        return keys.unbind(), values.unbind()
