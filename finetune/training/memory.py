"""How much a training step remembers: as much as the card has room for, the rest is computed again.

A layer that is computed again in the backward pass (see :mod:`finetune.alpamayo.layers`) costs a third more time and
saves what it would have remembered. Which of the two is scarce depends on card, batch and adapters, so it is measured:
a step that recomputes every layer and one that recomputes one less tell what a layer holds for each word.
"""

from __future__ import annotations

import resource
from typing import Any

import torch

# Of the room found this part is used: the allocator needs some, and the backward pass varies.
_USED = 0.85
# Share of the layers that are computed again in addition when the memory was full.
_MORE = 6


class Recomputation:
    """How many layers of each half are computed again, ``model.checkpointed_layers``.

    Fixed where it was asked for or where the model is on a CPU. Else all of them in the first two steps, since the
    first one makes the optimiser's state, one less in the third, and from then on as many as the memory asks for. The
    numbers of a step are the same whatever it is.

    Args:
        model: an ``AlpamayoR1`` where it trains.
        wanted: layers of each half; -1 measures on a card, and means none on a CPU.
        device: where.
        most_words: words of the largest forward pass, padding included.
    """

    def __init__(self, model: Any, wanted: int, device: torch.device, most_words: int) -> None:
        self._model, self._device, self._most_words = model, device, most_words
        self._layers = len(model.expert.layers)
        self._measures = wanted < 0 and device.type == "cuda"
        self._step, self._resting = 0, 0
        self._held: list[float] = []  # bytes remembered for each word, of the measuring steps
        model.checkpointed_layers = self._layers if self._measures else max(0, wanted)

    def begin_step(self) -> None:
        """Before the forward passes of a step."""
        if self._measures:
            self._resting = torch.cuda.memory_allocated(self._device)
            self._model.checkpointed_layers = self._layers - (self._step == 2)

    def remembered(self, words: int) -> None:
        """Between a forward pass over so many words and its backward pass."""
        if self._measures and self._step > 0 and len(self._held) < self._step:
            self._held.append((torch.cuda.memory_allocated(self._device) - self._resting) / words)

    def end_step(self) -> None:
        """After the optimiser."""
        self._step += 1
        if self._measures and len(self._held) == 2:
            self._measures = False
            per_layer = (self._held[1] - self._held[0]) * self._most_words
            room = _USED * (card_bytes(self._device) - torch.cuda.max_memory_allocated(self._device))
            remembered = self._layers if per_layer <= 0.0 else int(max(0.0, room) / per_layer)
            self._settle(self._layers - min(self._layers, remembered))

    @property
    def can_make_room(self) -> bool:
        """Whether more layers can be computed again."""
        return bool(self._model.checkpointed_layers < self._layers)

    def make_room(self) -> None:
        """The memory was full: compute more layers again, from this step on."""
        self._measures = False
        self._settle(min(self._layers, self._model.checkpointed_layers + max(1, self._layers // _MORE)))
        torch.cuda.empty_cache()

    def _settle(self, count: int) -> None:
        self._model.checkpointed_layers = count
        print(f"{count} of {self._layers} layers of each half are computed again in the backward pass", flush=True)


def card_bytes(device: torch.device) -> float:
    """What this process can have of a card: what it holds and what is free, at most what it was limited to."""
    free, total = torch.cuda.mem_get_info(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)(device.index or 0)
    return min(free + torch.cuda.memory_reserved(device), share * total)


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held so far: reserved on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
