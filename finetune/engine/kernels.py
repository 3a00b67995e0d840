"""A decoder layer's kernels, in Triton's language.

One kart's rows are few, so a product waits for its matrix and little else: it is cut along its inner side as well, so
that every multiprocessor has a piece of the matrix to fetch, and the kernel that reads it next adds the pieces up.
``EARLY`` kernels come up while the one before ends (Hopper's programmatic dependent launch). Before they wait for it
they read only what no kernel of the pass writes: weights, tables, places and limits.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def come_up(EARLY: tl.constexpr):
    if EARLY:
        gdc_launch_dependents()


@triton.jit
def wait(EARLY: tl.constexpr):
    if EARLY:
        gdc_wait()


@triton.jit
def begin(EARLY: tl.constexpr):
    come_up(EARLY)
    wait(EARLY)


@triton.jit
def add_and_norm(
    hidden,
    parts,
    weight,
    out,
    eps,
    rows,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    come_up(EARLY)
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    here = at < D
    factor = tl.load(weight + at, mask=here, other=0.0)
    wait(EARLY)
    value = tl.load(hidden + row * D + at, mask=here, other=0.0)
    if PARTS > 0:
        added = tl.zeros([BLOCK], tl.float32)
        for part in tl.static_range(PARTS):
            added += tl.load(parts + (part * rows + row) * D + at, mask=here, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + added.to(value.dtype).to(tl.float32)).to(value.dtype)
        tl.store(hidden + row * D + at, value, mask=here)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide) / D + eps)
    tl.store(out + row * D + at, (wide * scale).to(value.dtype) * factor, mask=here)


@triton.jit
def turn_and_store(
    parts,
    query_norm,
    key_norm,
    cos,
    sin,
    places,
    queries,
    keys,
    values,
    eps,
    columns,
    rows,
    H: tl.constexpr,
    G: tl.constexpr,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    PARTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    come_up(EARLY)
    row = tl.program_id(0)
    group = tl.program_id(1)
    in_group = tl.arange(0, GROUP)[:, None]
    here = in_group < G
    at = tl.arange(0, HALF)[None]
    place = tl.load(places + row)
    norm = key_norm if group == H // G else query_norm
    norm_a = tl.load(norm + at)
    norm_b = tl.load(norm + HALF + at)
    c = tl.load(cos + place * HALF + at).to(tl.float32)
    s = tl.load(sin + place * HALF + at).to(tl.float32)
    wait(EARLY)
    source = (row * (H + 2 * G) + group * G + in_group) * 2 * HALF + at
    a = tl.zeros([GROUP, HALF], tl.float32)
    b = tl.zeros([GROUP, HALF], tl.float32)
    for part in tl.static_range(PARTS):
        shifted = parts + part * rows * (H + 2 * G) * 2 * HALF + source
        a += tl.load(shifted, mask=here, other=0.0).to(tl.float32)
        b += tl.load(shifted + HALF, mask=here, other=0.0).to(tl.float32)
    kind = keys.dtype.element_ty
    target = (in_group * columns + place) * 2 * HALF + at
    if group > H // G:
        tl.store(values + target, a.to(kind), mask=here)
        tl.store(values + target + HALF, b.to(kind), mask=here)
    else:
        a = a.to(kind).to(tl.float32)
        b = b.to(kind).to(tl.float32)
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + eps)[:, None]
        a = ((a * scale).to(kind) * norm_a).to(tl.float32)
        b = ((b * scale).to(kind) * norm_b).to(tl.float32)
        first = (a * c - b * s).to(kind)
        second = (b * c + a * s).to(kind)
        if group == H // G:
            tl.store(keys + target, first, mask=here)
            tl.store(keys + target + HALF, second, mask=here)
        else:
            into = queries + (row * H + group * G + in_group) * 2 * HALF + at
            tl.store(into, first, mask=here)
            tl.store(into + HALF, second, mask=here)


@triton.jit
def turn(
    qkv, cos, sin, out, patches, HEADS: tl.constexpr, GROUP: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    head = tl.arange(0, GROUP)[:, None]
    at = tl.arange(0, BLOCK)[None]
    here = (head < HEADS) & (at < HALF)
    source = ((row * 3 + tl.program_id(1)) * HEADS + head) * 2 * HALF + at
    a = tl.load(qkv + source, mask=here, other=0.0).to(tl.float32)
    b = tl.load(qkv + source + HALF, mask=here, other=0.0).to(tl.float32)
    turn = (row % patches) * 2 * HALF + at
    c = tl.load(cos + turn, mask=at < HALF, other=0.0)
    s = tl.load(sin + turn, mask=at < HALF, other=0.0)
    target = ((row * 2 + tl.program_id(1)) * HEADS + head) * 2 * HALF + at
    tl.store(out + target, (a * c - b * s).to(out.dtype.element_ty), mask=here)
    tl.store(out + target + HALF, (b * c + a * s).to(out.dtype.element_ty), mask=here)


@triton.jit
def attend(
    queries,
    keys,
    values,
    limits,
    out,
    scale,
    rows,
    columns,
    H: tl.constexpr,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EARLY: tl.constexpr,
):
    come_up(EARLY)
    head = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, D)
    here = row < rows
    limit = tl.load(limits + row, mask=here, other=1)
    end = tl.max(limit)
    wait(EARLY)
    query = tl.load(queries + (row[:, None] * H + head) * D + at[None], mask=here[:, None], other=0.0)
    keys += (head // SHARED) * columns * D
    values += (head // SHARED) * columns * D
    highest = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, D], tl.float32)
    # Columns behind the last limit hold what was written earlier: finite, and weighed with nothing.
    for start in tl.range(0, end, COLUMNS, num_stages=3):
        column = start + tl.arange(0, COLUMNS)
        key = tl.load(keys + column[None] * D + at[:, None])
        value = tl.load(values + column[:, None] * D + at[None])
        score = tl.where(column[None] < limit[:, None], tl.dot(query, key) * scale, -1e30)
        higher = tl.maximum(highest, tl.max(score, 1))
        faded = tl.exp2(highest - higher)
        weight = tl.exp2(score - higher[:, None])
        total = total * faded + tl.sum(weight, 1)
        mixed = mixed * faded[:, None] + tl.dot(weight.to(value.dtype), value)
        highest = higher
    mixed = mixed / total[:, None]
    tl.store(out + (row[:, None] * H + head) * D + at[None], mixed.to(query.dtype), mask=here[:, None])


@triton.jit
def product(
    x,
    weight,
    out,
    rows,
    N,
    K,
    share,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    part = tl.program_id(1)
    column = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    row = tl.arange(0, ROWS)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros([ROWS, BLOCK_N], tl.float32)
    for start in tl.range(part * share, tl.minimum(part * share + share, K), BLOCK_K, num_stages=STAGES):
        a = tl.load(x + row[:, None] * K + start + inner[None], mask=row[:, None] < rows, other=0.0)
        b = tl.load(weight + column[None] * K + start + inner[:, None], mask=column[None] < N, other=0.0)
        total = tl.dot(a, b, total)
    here = (row[:, None] < rows) & (column[None] < N)
    tl.store(out + (part * rows + row[:, None]) * N + column[None], total, mask=here)


@triton.jit
def gated(
    x,
    weight,
    out,
    rows,
    N,
    K,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, ROWS)
    inner = tl.arange(0, BLOCK_K)
    gate = tl.zeros([ROWS, BLOCK_N], tl.float32)
    up = tl.zeros([ROWS, BLOCK_N], tl.float32)
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        a = tl.load(x + row[:, None] * K + start + inner[None], mask=row[:, None] < rows, other=0.0)
        gate = tl.dot(a, tl.load(weight + column[None] * K + start + inner[:, None]), gate)
        up = tl.dot(a, tl.load(weight + (N + column[None]) * K + start + inner[:, None]), up)
    rounded = gate.to(x.dtype.element_ty).to(tl.float32)
    value = (rounded / (1.0 + tl.exp(-rounded))).to(x.dtype.element_ty) * up.to(x.dtype.element_ty)
    tl.store(out + row[:, None] * N + column[None], value, mask=row[:, None] < rows)


@triton.jit
def silu_mul(gate_up, out, width, count, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    begin(EARLY)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < count
    gate_at = (at // width) * 2 * width + at % width
    gate = tl.load(gate_up + gate_at, mask=here, other=0.0)
    wide = gate.to(tl.float32)
    up = tl.load(gate_up + gate_at + width, mask=here, other=0.0)
    tl.store(out + at, (wide / (1.0 + tl.exp(-wide))).to(gate.dtype) * up, mask=here)
