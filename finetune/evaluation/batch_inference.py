"""Samples planned in batches by one model after another; pictures are read and encoded once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from collector.common.errors import MonoError
from collector.dataset.schema import Sample
from finetune.alpamayo_policy import AlpamayoPolicy
from finetune.policy import Observation, Plan
from finetune.processing.processor import Encoded
from finetune.training.batches import observe, pack_pixels, unpack_pixels

# Of encoded pictures kept for the next model; what does not fit is encoded again.
CACHE_BYTES = 2 * 2**30

NO_PICTURE = "picture that cannot be read"


class UnreadableFrame(MonoError):
    """A picture of a sample is absent or no picture."""


class SamplePrompts:
    """Prompts of samples, encoded on first use and kept packed as long as there is room.

    Args:
        samples, folder: of a dataset.
        cameras: camera mode.
        room_bytes: for packed pictures.
    """

    def __init__(self, samples: Sequence[Sample], folder: Path, cameras: str, room_bytes: int) -> None:
        self.samples, self._folder, self._cameras, self._room = samples, folder, cameras, room_bytes
        self._kept: dict[int, tuple[Observation, Encoded, Tensor]] = {}

    def get(self, index: int, policy: AlpamayoPolicy) -> tuple[Observation, Encoded]:
        """Observation and prompt of a sample. All policies must encode alike: they come from one model folder.

        Raises:
            UnreadableFrame: a frame cannot be read.
            MonoError: the camera mode needs what the dataset does not have.
        """
        if index in self._kept:
            observation, encoded, packed = self._kept[index]
            return observation, replace(encoded, pixel_values=unpack_pixels(packed))
        try:
            observation = observe(self.samples[index], self._folder, self._cameras)
        except MonoError as error:
            raise UnreadableFrame(error.found, error.expected, error.do) from error
        encoded = policy.encode(observation)
        packed = pack_pixels(encoded.pixel_values)
        if packed.numel() <= self._room:
            self._room -= packed.numel()
            # The prompt holds all that the frames said.
            observation = replace(observation, frames={})
            self._kept[index] = observation, replace(encoded, pixel_values=packed[:0]), packed
        return observation, replace(encoded, pixel_values=unpack_pixels(packed))


def plan_samples(
    policy: AlpamayoPolicy, prompts: SamplePrompts, draws: int, batch_size: int, title: str
) -> Iterator[list[tuple[int, Plan, np.ndarray] | tuple[int, str]]]:
    """Plan every sample with the driving path itself, a batch at a time.

    Yields:
        per batch, for each sample its index, plan and draws (K, 64, 3), or its index and why there is no plan.
    """
    count = len(prompts.samples)
    with tqdm(total=count, desc=title, unit="sample", dynamic_ncols=True, disable=None) as bar:
        for start in range(0, count, batch_size):
            done: list[tuple[int, Plan, np.ndarray] | tuple[int, str]] = []
            ready: list[tuple[int, Observation, Encoded]] = []
            for index in range(start, min(start + batch_size, count)):
                try:
                    ready.append((index, *prompts.get(index, policy)))
                except UnreadableFrame:
                    done.append((index, NO_PICTURE))
            plans = policy.plan_draws([o for _, o, _ in ready], draws, [encoded for _, _, encoded in ready])
            done += [(index, plan, drawn) for (index, _, _), (plan, drawn) in zip(ready, plans)]
            bar.update(len(done))
            yield done
