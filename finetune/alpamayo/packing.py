"""Several texts behind one reading of their picture.

The samples of a pair differ in what is thought and in what is driven; the prompt before that, most of it a picture, is
the same. A packed row holds it once, and behind it every text, which sees the prompt and itself only and stands where
it would stand alone. What comes out is taken apart again, so the losses are those of samples side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """S samples in R packed rows of P columns.

    Attributes:
        row: (S,) the packed row of each sample.
        columns: (S, L) the columns of its words; 0 on padding.
        part: (R, P) 0 for a prompt, 1, 2, ... for the texts behind it, -1 on padding.
    """

    row: Tensor
    columns: Tensor
    part: Tensor

    @classmethod
    def of(
        cls, lengths: Sequence[int], shared: Sequence[int], row: Sequence[int], columns: int, multiple: int
    ) -> Packing:
        """How to lay out samples.

        Args:
            lengths: words of each sample.
            shared: how many of these, from the first on, are those of all samples of its row.
            row: of each sample, counting up from 0.
            columns: L, at least the greatest length.
            multiple: P is one of so many words.
        """
        places = torch.zeros(len(lengths), columns, dtype=torch.long)
        parts: list[list[int]] = []
        for sample, (length, prompt, at) in enumerate(zip(lengths, shared, row, strict=True)):
            if at == len(parts):
                parts.append([0] * prompt)
            start = len(parts[at])
            parts[at] += [parts[at][-1] + 1] * (length - prompt)
            places[sample, :length] = torch.cat([torch.arange(prompt), torch.arange(start, len(parts[at]))])
        width = -(-max(map(len, parts)) // multiple) * multiple
        part = torch.tensor([each + [-1] * (width - len(each)) for each in parts])
        return cls(torch.tensor(row), places, part)

    def to(self, device: torch.device) -> Packing:
        """On another device."""
        return Packing(*(getattr(self, each.name).to(device) for each in fields(self)))

    @property
    def firsts(self) -> Tensor:
        """(R,) the first sample of each packed row, whose picture is that of all."""
        changes = torch.diff(self.row, prepend=self.row.new_tensor([-1]))
        return changes.nonzero()[:, 0]

    def packed(self, values: Tensor, filled: Tensor) -> Tensor:
        """Values (..., S, L) of samples, as (..., R, P); 0 on padding. What samples share is alike in all."""
        out = values.new_zeros(*values.shape[:-2], *self.part.shape)
        rows = self.row[:, None].expand_as(self.columns)
        out[..., rows[filled], self.columns[filled]] = values[..., filled]
        return out

    def apart(self, values: Tensor) -> Tensor:
        """Values (R, P, ...) of packed rows, as (S, L, ...)."""
        return values[self.row[:, None], self.columns]

    def apart_heads(self, values: Tensor) -> Tensor:
        """Keys or values (R, heads, P, d) of packed rows, as (S, heads, L, d)."""
        return self.apart(values.transpose(1, 2)).transpose(1, 2)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Additive mask (R, 1, P, P): a word sees the prompt and its own text, up to itself."""
        asking, asked = self.part[:, :, None], self.part[:, None]
        before = torch.ones(self.part.shape[1:] * 2, dtype=torch.bool, device=self.part.device).tril()
        sees = before & ((asked == 0) | (asked == asking))
        hidden = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
        return hidden[:, None]
