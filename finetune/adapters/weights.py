"""The arithmetic of an adapter, one weight at a time: the same for driving with it and for writing a merged model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from collector.common.errors import MonoError
from finetune.adapters.folder import AdapterFacts, adapter_layout
from finetune.model_files.weight_files import StoredTensor

TORCH_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

# A training moves weights by less than their own size: adapters of 1000 steps on the tiny base by 0.8 times at most.
_MOST_CHANGE = 20.0


class AdapterWeights:
    """An adapter's matrices, read when they are needed; see :func:`finetune.adapters.folder.adapter_layout`."""

    def __init__(self, facts: AdapterFacts, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.facts = facts
        self._pairs, self._full = adapter_layout(facts, shapes)

    @property
    def names(self) -> list[str]:
        """Every parameter the adapter changes."""
        return [*self._pairs, *self._full]

    def applied(self, name: str, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A base weight with the adapter in it: W + scale B A, or the stored value of a layer trained in full.

        Computed in float32 where the weight is, and rounded once, to ``dtype`` or the weight's own type.

        Raises:
            MonoError: the adapter's numbers are not finite.
        """
        if name in self._full:
            value = self._finite(name, self._full[name], weight.device)
        else:
            down, up = (self._finite(name, half, weight.device) for half in self._pairs[name])
            value = torch.addmm(weight.float(), up, down, alpha=self.facts.scale)
        return value.to(dtype or weight.dtype)

    def _finite(self, name: str, stored: StoredTensor, device: torch.device) -> Tensor:
        values = to_tensor(stored.read(), stored.dtype, stored.shape).to(device).float()
        if not bool(torch.isfinite(values).all()):
            found = f"the adapter {self.facts.folder} holds NaN or infinity for {name}"
            raise MonoError(found, "finite weights", "use an earlier checkpoint; a training run that stays finite")
        return values


def to_tensor(content: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Bytes of a file as a tensor; shares their memory."""
    return torch.from_numpy(content).view(TORCH_TYPES[dtype]).view(shape)


def to_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor's bytes, as a file holds them."""
    content: NDArray[np.uint8] = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return content


class PartChanges:
    """How much each part of a model was really changed, after rounding to its own type.

    A LoRA update that is lost when a bfloat16 weight swallows it counts as none.
    """

    def __init__(self, adapter: Path) -> None:
        self._adapter = adapter
        self._norms: dict[str, float] = {}

    def add(self, part: str, before: Tensor, after: Tensor) -> None:
        """Count one weight.

        Raises:
            MonoError: the change is out of all proportion, as no training makes it.
        """
        change, size = (float(torch.linalg.vector_norm(x)) for x in (after.float() - before.float(), before.float()))
        if size > 0.0 and not change <= _MOST_CHANGE * size:
            found = f"the adapter {self._adapter} changes a weight of the {part} by {change / size:.3g} times its size"
            raise MonoError(
                found, f"at most {_MOST_CHANGE:g} times", "copy the adapter folder again, or train it again"
            )
        self._norms[part] = float(np.hypot(self._norms.get(part, 0.0), change))

    def proven(self) -> dict[str, float]:
        """Norm of the change per part (MonoError: a part the adapter names is as it was)."""
        still = [part for part, norm in self._norms.items() if not norm > 0.0]
        if still or not self._norms:
            found = f"the adapter {self._adapter} changes nothing in: {', '.join(still) or 'the whole model'}"
            do = "train it (an adapter saved before the first step is zero by construction)"
            raise MonoError(found, "a change of the weights in each part it names", do)
        return dict(self._norms)
