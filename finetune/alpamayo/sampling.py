"""Drawing paths: the noise they start from, which stamp and number alone decide, and the one of several to drive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collector.geometry.constants import FUTURE_STEPS


def initial_noise(seed: int, stamps_ns: Sequence[int], samples: int, temperature: float, draws: int = 0) -> Tensor:
    """Initial noise of several paths per frame.

    Args:
        seed: of all.
        stamps_ns: of the frames; what is drawn for one does not depend on the others.
        samples: paths of which one is driven, at ``temperature``; of several at 1 where that is 0.
        draws: further ones, at temperature 1, the first ones the same for any number.

    Returns:
        (B, samples + draws, 64, 2), float32.
    """
    if samples > 1:
        temperature = temperature or 1.0
    noise = torch.zeros(len(stamps_ns), samples + draws, FUTURE_STEPS, 2)
    for row, stamp_ns in enumerate(stamps_ns):
        for sample in range(samples if temperature > 0.0 else 0):
            noise[row, sample] = temperature * _seeded_noise(seed, stamp_ns, *([sample] if sample else []))
        for draw in range(draws):
            noise[row, samples + draw] = _seeded_noise(seed, stamp_ns, draw + 1)
    return noise


def medoid(paths: NDArray[np.float64]) -> int:
    """Which of several paths (K, 64, 3) is nearest to all others, by the mean distance of their points."""
    if len(paths) == 1:
        return 0
    apart = np.linalg.norm(paths[:, None, :, :2] - paths[None, :, :, :2], axis=-1)
    return int(apart.mean(-1).sum(-1).argmin())


def _seeded_noise(*seeds: int) -> Tensor:
    # Stamps may lie before the zero of their clock.
    seed = np.random.SeedSequence([value % 2**64 for value in seeds]).generate_state(1, np.uint64)[0]
    return torch.randn((FUTURE_STEPS, 2), generator=torch.Generator().manual_seed(int(seed) >> 1))
