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


class ExpertKVCache:
    """Keys and values the expert's layers see while sampling: the prefix, then their own 64.

    It stands where transformers expects a cache, but keeps nothing: each pass starts from the bare prefix, so a
    sampling loop cannot grow it. K draws of a row share one prefix. The concatenation is allocated once and only its
    last columns are rewritten, so no gradient can flow through it.
    """

    def __init__(self, prefix: PrefixCache, draws: int) -> None:
        self._prefix = prefix
        self._draws = draws
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of the prefix."""
        return self._prefix.keys[layer_idx].shape[2]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Columns of the prefix and the new ones, (B*K, kv heads, L+64, head_dim) each."""
        past = self._prefix.keys[layer_idx], self._prefix.values[layer_idx]
        if layer_idx not in self._buffers:
            self._buffers[layer_idx] = tuple(  # type: ignore[assignment]
                join_draws(before, new, self._draws) for before, new in zip(past, (keys, values), strict=False)
            )
        buffers = self._buffers[layer_idx]
        for buffer, new in zip(buffers, (keys, values), strict=False):
            buffer[:, :, -new.shape[2] :] = new
        return buffers


class DecodeKVCache:
    """Keys and values of a growing text, in buffers allocated once for the longest answer."""

    def __init__(self, prefix: PrefixCache, room: int) -> None:
        self._length = prefix.keys[0].shape[2]
        self._new = 0

        def widen(past: Tensor) -> Tensor:
            wide = past.new_zeros(*past.shape[:2], self._length + room, past.shape[3])
            wide[:, :, : self._length] = past
            return wide

        self._keys = [widen(past) for past in prefix.keys]
        self._values = [widen(past) for past in prefix.values]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - transformers passes it
        """Columns written so far."""
        return self._length + self._new

    def advance(self) -> None:
        """Make the column of the next token the current one; call before each step."""
        self._new += 1

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write one token's column and return everything up to it."""
        end = self.get_seq_length()
        self._keys[layer_idx][:, :, end - 1 : end] = keys
        self._values[layer_idx][:, :, end - 1 : end] = values
        return self._keys[layer_idx][:, :, :end], self._values[layer_idx][:, :, :end]

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All keys and values written, per layer."""
        end = self.get_seq_length()
        return (tuple(keys[:, :, :end] for keys in self._keys), tuple(values[:, :, :end] for values in self._values))
