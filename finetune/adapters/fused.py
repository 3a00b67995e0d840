"""A LoRA layer as one step of autograd.

PEFT's own forward keeps the input in the adapter's precision (twice the bytes of a bfloat16 model) and launches a
dozen small kernels per layer; at 500 adapted layers, a GPU at small batches waits for launches more than it computes,
and a CPU passes over the output three times more than it needs to.
:func:`fuse_lora` swaps the forward of PEFT's layers in place and leaves their parameters, names and files alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def base_weight(layer: Any) -> Tensor:
    """The frozen weight (out, in) of a layer, unpacked where it is stored in four bits."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        weight: Tensor = layer.weight
        return weight
    from bitsandbytes.functional import dequantize_4bit

    unpacked: Tensor = dequantize_4bit(layer.weight.data, state)
    return unpacked


def updated_weight(layer: Any, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype) -> Tensor | None:
    """W + scale B A where that loses nothing: in float32. bfloat16 would round a small update away."""
    return torch.addmm(base_weight(layer).float(), b, a, alpha=scale) if dtype == torch.float32 else None


class LoraLinear(torch.autograd.Function):
    """y = x W' + scale (x A') B' + bias; remembers only its input, and makes W again for the backward pass.

    In float32 the update is added to the weight before the product, one pass over the output instead of three. In less
    precision the small matrices, trained in float32, are multiplied in the precision of the input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """(..., in) to (..., out); ``a`` (rank, in), ``b`` (out, rank)."""
        flat = x.flatten(0, -2)
        updated = updated_weight(layer, a, b, scale, x.dtype)
        if updated is not None:
            output = functional.linear(flat, updated, layer.bias)
        else:
            output = functional.linear(flat, base_weight(layer).to(x.dtype), layer.bias)
            output.addmm_(flat @ a.to(x.dtype).t(), b.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(flat, a, b)
        ctx.layer, ctx.scale, ctx.shape = layer, scale, x.shape
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        """Gradients of the input and of the two small matrices; the frozen weight and bias get none."""
        flat, a, b = ctx.saved_tensors
        grad = gradients[0].flatten(0, -2)
        small = grad @ (b.to(grad.dtype) * ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            updated = updated_weight(ctx.layer, a, b, ctx.scale, grad.dtype)
            if updated is not None:
                grad_x = grad @ updated
            else:
                grad_x = grad @ base_weight(ctx.layer).to(grad.dtype)
                grad_x.addmm_(small, a.to(grad.dtype))
            grad_x = grad_x.view(ctx.shape)
        grad_a = (small.t() @ flat).to(a.dtype)
        grad_b = (grad.t() @ (flat @ a.to(flat.dtype).t())).mul_(ctx.scale).to(b.dtype)
        return grad_x, None, grad_a, grad_b, None


def fuse_lora(model: nn.Module) -> int:
    """Let every plain LoRA layer of a model run as :class:`LoraLinear`; how many layers were swapped.

    Left to PEFT are layers with dropout, several adapters or a variant such as DoRA.
    """
    swapped = 0
    layer: Any
    for layer in model.modules():
        if not hasattr(layer, "lora_A") or not isinstance(getattr(layer, "base_layer", None), nn.Linear):
            continue
        plain = (
            list(layer.lora_A) == ["default"]
            and isinstance(layer.lora_dropout["default"], nn.Identity)
            and not layer.lora_variant
        )
        if plain:
            kind: Any = type(layer)
            layer.__class__ = _fused(kind)
            swapped += 1
    return swapped


@cache
def _fused(kind: Any) -> type:
    """A subclass of one of PEFT's layers with the other forward; a class, so that layers of a kind compile once."""

    def forward(self: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
        if self.disable_adapters or self.merged:
            return functional.linear(x, base_weight(self.base_layer).to(x.dtype), self.base_layer.bias)
        a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
        output: Tensor = LoraLinear.apply(x, self.base_layer, a, b, self.scaling["default"])  # type: ignore[no-untyped-call]
        return output

    return type(f"Fused{kind.__name__}", (kind,), {"forward": forward})
