"""A Qwen3-VL decoder over one kart's columns: memory of a fixed size, weights looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from finetune.alpamayo.decoder import joined_weight, linear_groups, packed_product
from finetune.engine.operations import Operations, Weight


class UnsuitableError(Exception):
    """A model or its input that cannot be planned for on fixed shapes."""


Memory = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Weights:
    """Of one layer: the four products' matrices and the four norms'."""

    qkv: Weight
    out: Weight
    gate_up: Weight
    down: Weight
    before_attention: Tensor
    before_perceptron: Tensor
    queries: Tensor
    keys: Tensor


class FixedDecoder:
    """The layers of a decoder, writing their keys and values into one memory.

    Args:
        module: transformers' ``Qwen3VLTextModel`` whose matrices are packed
            (:func:`finetune.alpamayo.decoder.pack_linears`).
        operations: how it is computed.

    Raises:
        UnsuitableError: its matrices are neither plain ones side by side nor packed (adapters).
    """

    def __init__(self, module: Any, operations: Operations) -> None:
        self._operations, self._eps = operations, float(module.norm.variance_epsilon)
        self._norm = module.norm.weight.detach()
        self._layers = [self._weights(layer) for layer in module.layers]

    @staticmethod
    def _weights(layer: Any) -> _Weights:
        attention = layer.self_attn
        qkv, gate_up, out, down = (
            _weight(group) for group in (*linear_groups(layer), [attention.o_proj], [layer.mlp.down_proj])
        )
        norms = (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm)
        return _Weights(qkv, out, gate_up, down, *(norm.weight.detach() for norm in norms))

    def run(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        places: Tensor,
        memory: Memory,
        limits: Tensor | None = None,
        image_places: Tensor | None = None,
        deepstack: Sequence[Tensor] = (),
        wanted: slice = slice(None),
    ) -> Tensor:
        """Last hidden states of the wanted rows, after the final norm.

        Args:
            hidden: (T, D) embeddings, overwritten.
            rotary, places, limits: see :class:`finetune.engine.operations.Operations`.
            memory: per layer.
            image_places: (m,) rows of image tokens; deepstack: features (m, D) added after the first layers.
            wanted: rows to answer with.
        """
        do, eps = self._operations, self._eps
        parts: Tensor | None = None
        for index, (layer, columns) in enumerate(zip(self._layers, memory, strict=True)):
            normed = do.add_and_norm(hidden, parts, layer.before_attention, eps)
            qkv = do.product(normed, layer.qkv)
            queries = do.turn_and_store(qkv, (layer.queries, layer.keys), eps, rotary, places, columns)
            parts = do.product(do.attend(queries, columns, limits), layer.out)
            normed = do.add_and_norm(hidden, parts, layer.before_perceptron, eps)
            parts = do.product(do.gated(normed, layer.gate_up), layer.down)
            if index < len(deepstack) and image_places is not None:
                do.add_and_norm(hidden, parts, self._norm, eps)
                hidden.index_add_(0, image_places, deepstack[index])
                parts = None
        return do.add_and_norm(hidden[wanted], None if parts is None else parts[:, wanted], self._norm, self._eps)


def _weight(linears: Sequence[Any]) -> Weight:
    """What multiplies by all of them at once."""
    weight = joined_weight(linears)
    found: Weight | None = packed_product(linears) if weight is None else weight
    if found is None:
        raise UnsuitableError("weights that are no plain matrices")
    return found
