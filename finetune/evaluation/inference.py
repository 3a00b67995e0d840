"""Open-loop inference: samples planned in batches by the driving path itself, as the command and the studies do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from collector.common.errors import MonoError
from collector.common.tables import progress
from collector.dataset.schema import Sample
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.checkpoint import load_base
from finetune.policy import REFERENCE, Observation, Plan, PolicySettings
from finetune.processing.processor import Encoded
from finetune.training.batches import observe, pack_pixels, unpack_pixels

# Of encoded pictures kept for the next model; what does not fit is encoded again.
CACHE_BYTES = 2 * 2**30

# A plan and its draws (K, 64, 3).
Planned = tuple[Plan, NDArray[np.float64]]
PlanBatch = Callable[[Sequence[Sample], Sequence[Observation], Sequence[Encoded]], list[Planned]]


class FrameError(MonoError):
    """A picture of a sample is absent or no picture."""


def policies(
    model: Path,
    adapter: Path | None,
    cameras: str,
    device: str,
    seed: int = 0,
    quantised: str = PolicySettings.quantised,
) -> Iterator[tuple[str, AlpamayoPolicy]]:
    """The base as "before" and, with an adapter, base and adapter as "after".

    The base is loaded once and the adapter merged into it in place: be done with the one before asking for the other.
    """
    how: dict[str, Any] = {"cameras": cameras, "seed": seed, "device": device, "quantised": quantised}
    loaded = load_base(model, device, quantised)
    yield "before", AlpamayoPolicy(loaded, engine=REFERENCE, **how)
    if adapter is not None:
        if quantised != "none":  # nothing can be merged into packed weights
            loaded = load_base(model, device, quantised)
        yield "after", AlpamayoPolicy(loaded, adapter=adapter, engine=REFERENCE, **how)


class SamplePrompts:
    """Prompts of samples of a dataset folder, encoded on first use; ``room_bytes`` of packed pictures are kept.

    The frames of a kept prompt are let go.
    """

    def __init__(self, samples: Sequence[Sample], folder: Path, cameras: str, room_bytes: int = 0) -> None:
        self.samples, self._folder, self._cameras, self._room = samples, folder, cameras, room_bytes
        self._kept: dict[int, tuple[Observation, Encoded, Tensor]] = {}

    def get(self, index: int, policy: AlpamayoPolicy) -> tuple[Observation, Encoded]:
        """Observation and prompt of a sample. All policies must encode alike: they come from one model folder.

        Raises:
            FrameError: a frame cannot be read.
            MonoError: the camera mode needs what the dataset does not have.
        """
        if index in self._kept:
            observation, encoded, packed = self._kept[index]
            return observation, replace(encoded, pixel_values=unpack_pixels(packed))
        try:
            observation = observe(self.samples[index], self._folder, self._cameras)
        except MonoError as error:
            raise FrameError(error.found, error.expected, error.do) from error
        encoded = policy.encode(observation)
        packed = pack_pixels(encoded.pixel_values)
        if packed.numel() <= self._room:
            self._room -= packed.numel()
            # The prompt holds all that the frames said.
            observation = replace(observation, frames={})
            self._kept[index] = observation, replace(encoded, pixel_values=packed[:0]), packed
        return observation, replace(encoded, pixel_values=unpack_pixels(packed))


def plan_samples(
    policy: AlpamayoPolicy,
    prompts: SamplePrompts,
    batch_size: int,  # samples per pass
    title: str,  # of the progress bar
    draws: int = 0,  # plans to draw for each sample beside its plan
    plan: PlanBatch | None = None,  # plans a batch instead of the policy
) -> Iterator[list[tuple[int, Planned | FrameError]]]:
    """Plan every sample; per batch, for each sample its index and plan, or its index and the unreadable picture."""
    starts = range(0, len(prompts.samples), batch_size)
    for start in progress(starts, title, "batch"):
        done: list[tuple[int, Planned | FrameError]] = []
        ready: list[tuple[int, Observation, Encoded]] = []
        for index in range(start, min(start + batch_size, len(prompts.samples))):
            try:
                ready.append((index, *prompts.get(index, policy)))
            except FrameError as error:
                done.append((index, error))
        seen, encoded = [one for _, one, _ in ready], [one for _, _, one in ready]
        if plan is None:
            plans = policy.plan_draws(seen, draws, encoded)
        else:
            plans = plan([prompts.samples[index] for index, _, _ in ready], seen, encoded)
        yield done + [(index, planned) for (index, _, _), planned in zip(ready, plans, strict=True)]


def plan_all(
    policy: AlpamayoPolicy,
    samples: Sequence[Sample],
    folder: Path,
    batch_size: int,
    title: str,
    plan: PlanBatch | None = None,
) -> list[Plan]:
    """The plan of each sample; ``plan`` replaces the policy's own (FrameError: a picture cannot be read)."""
    prompts = SamplePrompts(samples, folder, policy.cameras)
    plans = []
    for batch in plan_samples(policy, prompts, batch_size, title, plan=plan):
        for _, planned in batch:
            if isinstance(planned, FrameError):
                raise planned
            plans.append(planned[0])
    return plans
