"""The kernels do what the plain operations do, to the rounding of bfloat16. Needs a GPU."""

from __future__ import annotations

import pytest
import torch

from finetune.engine.operations import Operations

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

from finetune.engine.triton_operations import TritonOperations

WIDTH, DIM, KEY_HEADS, COLUMNS, INNER = 2048, 128, 8, 512, 8256


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("rows", [1, 7, 16, 64, 100])
def test_kernels_are_the_operations(rows: int) -> None:
    generator = torch.Generator("cuda").manual_seed(rows)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", generator=generator).bfloat16()

    plain, fast = Operations(), TritonOperations(torch.device("cuda"))
    x, places = drawn(rows, WIDTH), torch.arange(rows, device="cuda") + 300
    qkv, norms, rotary = drawn(4096, WIDTH) * 0.02, (drawn(DIM), drawn(DIM)), (drawn(COLUMNS, 64), drawn(COLUMNS, 64))
    memory = drawn(KEY_HEADS, COLUMNS, DIM), drawn(KEY_HEADS, COLUMNS, DIM)
    other = memory[0].clone(), memory[1].clone()
    queries = plain.turn_and_store(plain.product(x, qkv), norms, 1e-6, rotary, places, memory)
    found = fast.turn_and_store(fast.product(x, qkv), norms, 1e-6, rotary, places, other)
    for ours, theirs in zip((found, *other), (queries, *memory), strict=True):
        assert relative(ours, theirs) < 1e-2
    limits = (places + 1).int()
    assert relative(fast.attend(queries, memory, limits), plain.attend(queries, memory, limits)) < 1e-2
    out, norm, first, second = drawn(WIDTH, WIDTH) * 0.02, drawn(WIDTH), x.clone(), x.clone()
    ours = fast.add_and_norm(first, fast.product(x, out), norm, 1e-6)
    theirs = plain.add_and_norm(second, plain.product(x, out), norm, 1e-6)
    assert relative(ours, theirs) < 1e-2 and relative(first, second) < 1e-2
    gate_up = drawn(2 * INNER, WIDTH) * 0.02
    assert relative(fast.gated(x, gate_up), plain.gated(x, gate_up)) < 1e-2
    tower = drawn(1, rows, 3, 16, 72)
    cos, sin = (torch.randn(rows, 36, device="cuda", generator=generator).repeat(1, 2) for _ in range(2))
    for ours, theirs in zip(fast.turn(tower, cos, sin), plain.turn(tower, cos, sin), strict=True):
        assert relative(ours, theirs) < 1e-2
