"""The kernels: one tile of tokens against all that it visits, with online softmax.

All three walk the other side in blocks: first the shared tokens, which every tile visits, one after
the other; then the tile's list. Without a window there are only shared tokens. Which pairs are
visible comes from `lists.py`; hidden ones get a score so low that they vanish as soon as a visible
one was met, and every token sees itself.

Sizes are run-time integers: nothing is compiled anew for another picture. Scores are in units of
log2, for exp2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton import lists

PLACE: tl.constexpr = tl.constexpr(lists.PLACE)
ALWAYS: tl.constexpr = tl.constexpr(lists.ALWAYS)
NEVER: tl.constexpr = tl.constexpr(lists.NEVER)
# A power of two: its product with the unit of a row's scores is exact. Compilers fuse the product
# and the subtraction of the row's maximum, which is rounded. Any other number would leave that
# rounding error, near 1e21, as the exponent of a row of which no key was seen yet.
HIDDEN: tl.constexpr = tl.constexpr(-(2.0**100))
SMALLEST: tl.constexpr = tl.constexpr(1e-6)  # number that a row is measured by
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
ALIGNED: tl.constexpr = tl.constexpr(lists.ALIGNED)

SIZES = [
    "heads",
    "tokens",
    "height",
    "width",
    "shared_count",
    "blocks_per_split",
    "radius_squared",
    *(
        f"{name}_{dim}"
        for name in (
            *("x", "q", "k", "v", "shared_k", "shared_v", "shared_q", "grad", "shared_grad"),
            *("out", "k_out", "v_out"),
        )
        for dim in ("b", "h", "l")
    ),
]


@triton.jit
def _tile(pid, tokens, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the first token of a tile, its tokens, and which of them are there."""
    tiles_x = tl.cdiv(width, COLUMNS)
    first_y, first_x = pid // tiles_x * ROWS, pid % tiles_x * COLUMNS
    index = tl.arange(0, ROWS * COLUMNS)
    y, x = first_y + index // COLUMNS, first_x + index % COLUMNS
    token = y * width + x
    there = (y < height) & (x < width) & (token < tokens)
    return first_y * width + first_x, tl.where(there, token, tokens - 1), there


@triton.jit
def _range(
    pid, split, first, blocks, own, shared_count, blocks_per_split,
    TOKENS: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Return the tile's places, where its list starts, and which blocks it visits."""
    shared_blocks = tl.cdiv(shared_count, BLOCK)
    if WINDOW:
        index = tl.arange(0, TOKENS)
        own = tl.load(own + index[:, None] * PLACE + tl.arange(0, PLACE)[None, :])
        first_entry = tl.load(first + pid)
        start, stop = 0, shared_blocks + tl.load(blocks + pid)
    else:
        own = 0
        first_entry = 0
        start = split * blocks_per_split
        stop = tl.minimum(start + blocks_per_split, shared_blocks)
    return own, first_entry, shared_blocks, start, stop


@triton.jit
def _visited(
    block, first_token, first_entry, shared_blocks, shared_count, offsets, places,
    BLOCK: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Return the rows that a block of the other side has in its tensor, and their places."""
    column = tl.arange(0, BLOCK)
    near = block * BLOCK + column
    row = tl.minimum(near, shared_count - 1)
    place = tl.where(near < shared_count, ALWAYS, NEVER)
    if WINDOW:
        listed = (block - shared_blocks) * BLOCK + column
        is_listed = listed >= 0
        offset = tl.load(offsets + first_entry + listed, mask=is_listed, other=0)
        listed_place = tl.load(places + first_entry + listed, mask=is_listed, other=0)
        row = tl.where(is_listed, first_token + offset, row)
        place = tl.where(is_listed, listed_place, place)
    return row, place


@triton.jit
def _skip(b, stride_b, h, stride_h):
    """Return how far a head of a sequence lies from the first one."""
    return tl.multiple_of(b * stride_b + h * stride_h, ALIGNED)


@triton.jit
def _rows(base, row, stride, D: tl.constexpr):
    """Return pointers to rows of D numbers; the stride is in units of `ALIGNED` numbers.

    In these units a row's start fits into 32 bits, which are multiplied in one instruction.
    """
    start = (row * stride).to(tl.int64) * ALIGNED
    return base + start[:, None] + tl.arange(0, D)[None, :]


@triton.jit
def _hidden(own, place, others, radius_squared, TOKENS: tl.constexpr, WINDOW: tl.constexpr):
    """Return zero for visible pairs and `HIDDEN` for others: what their products start from."""
    if WINDOW:
        at = tl.load(others + place[:, None] * PLACE + tl.arange(0, PLACE)[None, :])
        distance = tl.dot(own, tl.trans(at), input_precision="ieee")
        start = tl.where(distance < radius_squared, 0.0, HIDDEN)
    else:
        start = tl.where(place == NEVER, HIDDEN, 0.0)[None, :]
        start = tl.broadcast_to(start, [TOKENS, place.shape[0]])
    return start


@triton.jit(do_not_specialize=SIZES)
def forward(
    q, k, v, shared_k, shared_v, out, lse, q_steps, k_steps, shared_k_steps,
    first, blocks, offsets, places, others, own,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l,
    shared_k_b, shared_k_h, shared_k_l, shared_v_b, shared_v_h, shared_v_l,
    out_b, out_h, out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries to the keys of one split: normalised output, log-sum-exp.

    Rounded queries and keys are 8-bit integers, each row in steps of its own.
    """
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first_token, token, there = _tile(pid, tokens, height, width, ROWS, COLUMNS)
    q_tile = tl.load(_rows(q + _skip(b, q_b, h, q_h), token, q_l, D))
    k += _skip(b, k_b, h, k_h)
    v += _skip(b, v_b, h, v_h)
    shared_k += _skip(b, shared_k_b, h, shared_k_h)
    shared_v += _skip(b, shared_v_b, h, shared_v_h)
    own, first_entry, shared_blocks, start, stop = _range(
        pid, split, first, blocks, own, shared_count, blocks_per_split,
        ROWS * COLUMNS, BLOCK, WINDOW,
    )  # fmt: skip

    unit = tl.full([ROWS * COLUMNS], scale * LOG2E, tl.float32)
    if ROUNDED:
        unit *= tl.load(q_steps + bh.to(tl.int64) * tokens + token)
        k_steps += bh.to(tl.int64) * tokens
        shared_k_steps += bh.to(tl.int64) * shared_count
    highest = tl.full([ROWS * COLUMNS], HIDDEN, tl.float32)
    total = tl.zeros([ROWS * COLUMNS], tl.float32)
    sums = tl.zeros([ROWS * COLUMNS, D], tl.float32)
    for block in range(start, stop):
        row, place = _visited(
            block, first_token, first_entry, shared_blocks, shared_count, offsets, places,
            BLOCK, WINDOW,
        )  # fmt: skip
        shared = block < shared_blocks
        k_base, k_stride = tl.where(shared, shared_k, k), tl.where(shared, shared_k_l, k_l)
        v_base, v_stride = tl.where(shared, shared_v, v), tl.where(shared, shared_v_l, v_l)
        keys = tl.load(_rows(k_base, row, k_stride, D))
        hidden = _hidden(own, place, others, radius_squared, ROWS * COLUMNS, WINDOW)
        if ROUNDED:
            steps = tl.load(tl.where(shared, shared_k_steps, k_steps) + row)
            scores = tl.dot(q_tile, tl.trans(keys)).to(tl.float32) * steps[None, :] + hidden
        else:
            scores = tl.dot(q_tile, tl.trans(keys), hidden, input_precision="ieee")
        new_highest = tl.maximum(highest, tl.max(scores, 1) * unit)
        shares = tl.exp2(scores * unit[:, None] - new_highest[:, None])
        shrink = tl.exp2(highest - new_highest)
        total = total * shrink + tl.sum(shares, 1)
        values = tl.load(_rows(v_base, row, v_stride, D))
        sums = tl.dot(
            shares.to(values.dtype), values, sums * shrink[:, None], input_precision="ieee"
        )
        highest = new_highest

    batches = tl.num_programs(1) // heads
    out += _skip(split * batches + b, out_b, h, out_h)
    out_pointers = _rows(out, token, out_l, D)
    tl.store(out_pointers, (sums / total[:, None]).to(out.dtype.element_ty), there[:, None])
    lse += (split * tl.num_programs(1) + bh).to(tl.int64) * tokens
    tl.store(lse + token, (highest + tl.log2(total)) * LN2, there)


@triton.jit(do_not_specialize=SIZES)
def round_rows(
    x, mean, out, steps, x_b, x_h, x_l, heads, tokens, D: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Round rows, less a mean, to 8-bit integers in steps of their largest number."""
    bh = tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = row < tokens
    row = tl.minimum(row, tokens - 1)
    values = tl.load(_rows(x + _skip(b, x_b, h, x_h), row, x_l, D)).to(tl.float32)
    values -= tl.load(mean + bh * D + tl.arange(0, D))[None, :]
    step = tl.maximum(tl.max(tl.abs(values), 1), SMALLEST) / 127
    values = values / step[:, None]
    rounded = tl.where(values < 0, values - 0.5, values + 0.5).to(tl.int8)
    row = bh.to(tl.int64) * tokens + row
    tl.store(out + row[:, None] * D + tl.arange(0, D)[None, :], rounded, there[:, None])
    tl.store(steps + row, step, there)


@triton.jit(do_not_specialize=SIZES)
def backward_queries(
    q, k, v, shared_k, shared_v, grad, lse, delta, out,
    first, blocks, offsets, places, others, own,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l,
    shared_k_b, shared_k_h, shared_k_l, shared_v_b, shared_v_h, shared_v_l,
    grad_b, grad_h, grad_l, out_b, out_h, out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of one tile of queries through the keys of one split."""
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first_token, token, there = _tile(pid, tokens, height, width, ROWS, COLUMNS)
    q_tile = tl.load(_rows(q + _skip(b, q_b, h, q_h), token, q_l, D))
    grad_tile = tl.load(_rows(grad + _skip(b, grad_b, h, grad_h), token, grad_l, D))
    own_row = bh.to(tl.int64) * tokens + token
    own_lse = tl.load(lse + own_row) * LOG2E
    own_delta = tl.load(delta + own_row)
    k += _skip(b, k_b, h, k_h)
    v += _skip(b, v_b, h, v_h)
    shared_k += _skip(b, shared_k_b, h, shared_k_h)
    shared_v += _skip(b, shared_v_b, h, shared_v_h)
    own, first_entry, shared_blocks, start, stop = _range(
        pid, split, first, blocks, own, shared_count, blocks_per_split,
        ROWS * COLUMNS, BLOCK, WINDOW,
    )  # fmt: skip

    sums = tl.zeros([ROWS * COLUMNS, D], tl.float32)
    for block in range(start, stop):
        row, place = _visited(
            block, first_token, first_entry, shared_blocks, shared_count, offsets, places,
            BLOCK, WINDOW,
        )  # fmt: skip
        shared = block < shared_blocks
        k_base, k_stride = tl.where(shared, shared_k, k), tl.where(shared, shared_k_l, k_l)
        v_base, v_stride = tl.where(shared, shared_v, v), tl.where(shared, shared_v_l, v_l)
        keys = tl.load(_rows(k_base, row, k_stride, D))
        hidden = _hidden(own, place, others, radius_squared, ROWS * COLUMNS, WINDOW)
        scores = tl.dot(q_tile, tl.trans(keys), hidden, input_precision="ieee")
        shares = tl.exp2(scores * (scale * LOG2E) - own_lse[:, None])
        values = tl.load(_rows(v_base, row, v_stride, D))
        slopes = tl.dot(grad_tile, tl.trans(values), input_precision="ieee")
        slopes = shares * (slopes - own_delta[:, None])
        sums = tl.dot(slopes.to(keys.dtype), keys, sums, input_precision="ieee")

    batches = tl.num_programs(1) // heads
    out += _skip(split * batches + b, out_b, h, out_h)
    tl.store(_rows(out, token, out_l, D), (sums * scale).to(out.dtype.element_ty), there[:, None])


@triton.jit(do_not_specialize=SIZES)
def backward_keys(
    k, v, q, grad, lse, delta, shared_q, shared_grad, shared_lse, shared_delta, k_out, v_out,
    first, blocks, offsets, places, others, own,
    k_b, k_h, k_l, v_b, v_h, v_l, q_b, q_h, q_l, grad_b, grad_h, grad_l,
    shared_q_b, shared_q_h, shared_q_l, shared_grad_b, shared_grad_h, shared_grad_l,
    k_out_b, k_out_h, k_out_l, v_out_b, v_out_h, v_out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one tile of keys and values through the queries of one split."""
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    first_token, token, there = _tile(pid, tokens, height, width, ROWS, COLUMNS)
    k_tile = tl.load(_rows(k + _skip(b, k_b, h, k_h), token, k_l, D))
    v_tile = tl.load(_rows(v + _skip(b, v_b, h, v_h), token, v_l, D))
    q += _skip(b, q_b, h, q_h)
    grad += _skip(b, grad_b, h, grad_h)
    shared_q += _skip(b, shared_q_b, h, shared_q_h)
    shared_grad += _skip(b, shared_grad_b, h, shared_grad_h)
    lse += bh.to(tl.int64) * tokens
    delta += bh.to(tl.int64) * tokens
    shared_lse += bh.to(tl.int64) * shared_count
    shared_delta += bh.to(tl.int64) * shared_count
    own, first_entry, shared_blocks, start, stop = _range(
        pid, split, first, blocks, own, shared_count, blocks_per_split,
        ROWS * COLUMNS, BLOCK, WINDOW,
    )  # fmt: skip

    k_sums = tl.zeros([ROWS * COLUMNS, D], tl.float32)
    v_sums = tl.zeros([ROWS * COLUMNS, D], tl.float32)
    for block in range(start, stop):
        row, place = _visited(
            block, first_token, first_entry, shared_blocks, shared_count, offsets, places,
            BLOCK, WINDOW,
        )  # fmt: skip
        shared = block < shared_blocks
        q_base, q_stride = tl.where(shared, shared_q, q), tl.where(shared, shared_q_l, q_l)
        grad_base = tl.where(shared, shared_grad, grad)
        grad_stride = tl.where(shared, shared_grad_l, grad_l)
        lse_base, delta_base = (
            tl.where(shared, shared_lse, lse),
            tl.where(shared, shared_delta, delta),
        )
        queries = tl.load(_rows(q_base, row, q_stride, D))
        hidden = _hidden(own, place, others, radius_squared, ROWS * COLUMNS, WINDOW)
        scores = tl.dot(k_tile, tl.trans(queries), hidden, input_precision="ieee")
        shares = tl.exp2(scores * (scale * LOG2E) - (tl.load(lse_base + row) * LOG2E)[None, :])
        grads = tl.load(_rows(grad_base, row, grad_stride, D))
        v_sums = tl.dot(shares.to(grads.dtype), grads, v_sums, input_precision="ieee")
        slopes = tl.dot(v_tile, tl.trans(grads), input_precision="ieee")
        slopes = shares * (slopes - tl.load(delta_base + row)[None, :])
        k_sums = tl.dot(slopes.to(queries.dtype), queries, k_sums, input_precision="ieee")

    batches = tl.num_programs(1) // heads
    k_out += _skip(split * batches + b, k_out_b, h, k_out_h)
    v_out += _skip(split * batches + b, v_out_b, h, v_out_h)
    k_sums *= scale
    tl.store(_rows(k_out, token, k_out_l, D), k_sums.to(k_out.dtype.element_ty), there[:, None])
    tl.store(_rows(v_out, token, v_out_l, D), v_sums.to(v_out.dtype.element_ty), there[:, None])
