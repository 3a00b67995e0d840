"""In which order rows train, and with how much of their texts: every row once an epoch, all drawn by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune.training.settings import LoopSettings

if TYPE_CHECKING:
    from finetune.training.batches import EncodedSample, Said


def row_order(
    count: int, batch_size: int, seed: int, pairs: Sequence[str] | None = None, texts_per_frame: int = 1
) -> Iterator[list[int]]:
    """Endless batches of row indices: a fresh seeded permutation per epoch, none left out within one.

    With ``pairs``, the pair of each row ("" for a row alone), up to so many rows of a pair follow one another; which of
    them meet is drawn anew in every epoch.
    """
    generator = np.random.default_rng(seed)
    pending: list[int] = []
    while True:
        while len(pending) < batch_size:
            drawn = generator.permutation(count).tolist()
            pending += drawn if pairs is None else _side_by_side(drawn, pairs, texts_per_frame)
        yield pending[:batch_size]
        pending = pending[batch_size:]


def _side_by_side(drawn: Sequence[int], pairs: Sequence[str], texts_per_frame: int) -> list[int]:
    """Rows as they were drawn, in bundles of one pair; a bundle stands where the last of its rows was drawn."""
    bundles, ordered = dict[str, list[int]](), list[int]()
    for row in drawn:
        bundle = bundles.setdefault(pairs[row], []) if pairs[row] else []
        bundle.append(row)
        if not pairs[row] or len(bundle) == texts_per_frame:
            ordered += bundle
            bundles.pop(pairs[row], None)
    return ordered + [row for bundle in bundles.values() for row in bundle]


def drawn_words(rows: Sequence[EncodedSample], drawn: Sequence[float], settings: LoopSettings) -> list[Said]:
    """How much of its reasoning each row is trained with, from a number in [0, 1) for each.

    Reasoning dropout takes the lowest, wish dropout its share of the rest, where there is a wish to leave out.
    """
    silent = settings.reasoning_dropout
    unasked = silent + (1.0 - silent) * settings.wish_dropout
    return [
        "nothing" if at < silent else "unasked" if at < unasked and row.unasked_ids is not None else "all"
        for row, at in zip(rows, drawn, strict=True)
    ]
