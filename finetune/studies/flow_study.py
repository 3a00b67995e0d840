"""A trained model's flow, waypoint by waypoint: where its loss comes from, and how many Euler steps its paths need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collector.common.progress import progress
from collector.dataset.schema import Sample
from finetune.alpamayo.cache import PrefixCache
from finetune.alpamayo.flow_matching import interpolate, sample_times, target_velocity
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.studies.parity_stages import run_batch
from finetune.training.batches import cache_vision, collate, encode_row

FloatArray = NDArray[np.float64]
_DRAWS = 8


@dataclass(frozen=True)
class FlowStudy:
    """What a model's flow does on N samples, reasoning texts as trained.

    Attributes:
        squared_error: (N, 64, 2) of the velocity, mean over draws of noise and time as in training.
        ends: Euler steps -> (N, 64, 2) normalised actions reached from zero noise, as driving does by default.
        drawn_ends: the same from one draw of noise per sample.
    """

    squared_error: FloatArray
    ends: dict[int, FloatArray]
    drawn_ends: dict[int, FloatArray]


@torch.no_grad()
def study_flow(
    policy: AlpamayoPolicy, samples: Sequence[Sample], folder: Path, steps: Sequence[int], batch_size: int, seed: int
) -> FlowStudy:
    """Measure a model.

    Args:
        policy: with or without an adapter.
        samples, folder: of a dataset.
        steps: numbers of Euler steps.
        batch_size: samples per pass.
        seed: of noise and times, the same for every model.
    """
    generator = torch.Generator().manual_seed(seed)
    errors: list[Tensor] = []
    still: dict[int, list[Tensor]] = {count: [] for count in steps}
    drawn: dict[int, list[Tensor]] = {count: [] for count in steps}
    for prefix, actions in _prefixes(policy, samples, folder, batch_size):
        shape = (len(actions), _DRAWS, *actions.shape[1:])
        noise = torch.randn(shape, generator=generator).to(actions.device)
        times = sample_times(shape[:2], generator=generator).to(actions.device)
        targets = actions[:, None].expand_as(noise)
        x_t = interpolate(targets, noise, times)
        velocity = policy.model.velocity(prefix, x_t.flatten(0, 1), times.flatten()).view_as(noise)
        errors.append((velocity - target_velocity(targets, noise)).square().mean(dim=1))
        for count in steps:
            still[count].append(policy.model.sample_actions(prefix, torch.zeros_like(actions), count))
            drawn[count].append(policy.model.sample_actions(prefix, noise[:, 0], count))

    def joined(parts: list[Tensor]) -> FloatArray:
        return torch.cat(parts).double().cpu().numpy()

    return FlowStudy(
        joined(errors),
        {count: joined(parts) for count, parts in still.items()},
        {count: joined(parts) for count, parts in drawn.items()},
    )


def _prefixes(
    policy: AlpamayoPolicy, samples: Sequence[Sample], folder: Path, batch_size: int
) -> Iterator[tuple[PrefixCache, Tensor]]:
    """Prefixes with the true reasoning, and the true normalised actions (B, 64, 2)."""
    device = policy.model.device
    for start in progress(range(0, len(samples), batch_size), "flow", "batch"):
        rows = [encode_row(policy, sample, folder, policy.cameras) for sample in samples[start : start + batch_size]]
        batch = collate(list(cache_vision(policy.model, rows, device)), policy.processor.pad_id)
        yield run_batch(policy.model, batch), batch.actions.to(device)
