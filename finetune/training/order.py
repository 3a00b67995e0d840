"""In which order rows train: every row once an epoch, and texts of one frame side by side where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


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
