"""The kernels of the forward pass: attention with online softmax, and rounding to 8 bits.

Scores are in units of log2, for exp2. Hidden pairs get a score so low that they vanish as soon as a
visible one was met, and every token sees itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import (
    HIDDEN,
    SIZES,
    hidden_pairs,
    inside,
    listed,
    listed_entries,
    load_rows,
    own_places,
    shared_block,
    shared_blocks,
    skip,
    store_rows,
    tile,
)

SMALLEST: tl.constexpr = tl.constexpr(1e-6)  # number that a row is measured by
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=SIZES)
def forward(
    q, k, v, shared_k, shared_v, out, lse, q_steps, k_steps, shared_k_steps,
    first, blocks, offsets, places, others, own,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l,
    shared_k_b, shared_k_h, shared_k_l, shared_v_b, shared_v_h, shared_v_l,
    out_b, out_h, out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, WINDOW: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries to the keys of one split: normalised output, log-sum-exp.

    Rounded queries and keys are 8-bit integers, each row in steps of its own.
    """
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    TOKENS: tl.constexpr = ROWS * COLUMNS
    first_token, token, there = tile(pid, tokens, height, width, ROWS, COLUMNS)
    queries = load_rows(q + skip(b, q_b, h, q_h), token, q_l, D, WIDTH)
    unit = tl.full([TOKENS], scale * LOG2E, tl.float32)
    if ROUNDED:
        unit *= tl.load(q_steps + bh.to(tl.int64) * tokens + token)
        k_steps += bh.to(tl.int64) * tokens
        shared_k_steps += bh.to(tl.int64) * shared_count
    highest = tl.full([TOKENS], HIDDEN, tl.float32)
    total = tl.zeros([TOKENS], tl.float32)
    sums = tl.zeros([TOKENS, WIDTH], tl.float32)

    shared_k += skip(b, shared_k_b, h, shared_k_h)
    shared_v += skip(b, shared_v_b, h, shared_v_h)
    start, stop = shared_blocks(split, shared_count, blocks_per_split, BLOCK)
    for block in range(start, stop):
        row, hidden = shared_block(block, shared_count, TOKENS, BLOCK)
        highest, total, sums = _attend(
            queries, shared_k, shared_k_l, shared_v, shared_v_l, shared_k_steps, row, hidden,
            unit, highest, total, sums, D, WIDTH, ROUNDED,
        )  # fmt: skip
    if WINDOW:
        k += skip(b, k_b, h, k_h)
        v += skip(b, v_b, h, v_h)
        own = own_places(own, TOKENS)
        entry, count = listed_entries(pid, first, blocks, BLOCK)
        row, place = listed(entry, first_token, offsets, places)
        for block in range(0, count):
            # One block ahead: rows can be requested as soon as there is room for them.
            following = entry + tl.minimum(block + 1, count - 1) * BLOCK
            next_row, next_place = listed(following, first_token, offsets, places)
            hidden = hidden_pairs(own, place, others, radius_squared)
            highest, total, sums = _attend(
                queries, k, k_l, v, v_l, k_steps, row, hidden,
                unit, highest, total, sums, D, WIDTH, ROUNDED,
            )  # fmt: skip
            row, place = next_row, next_place

    batches = tl.num_programs(1) // heads
    out += skip(split * batches + b, out_b, h, out_h)
    store_rows(out, token, out_l, sums / total[:, None], there, D, WIDTH)
    lse += (split * tl.num_programs(1) + bh).to(tl.int64) * tokens
    tl.store(lse + token, (highest + tl.log2(total)) * LN2, there)


@triton.jit
def _attend(
    queries, k, k_stride, v, v_stride, k_steps, row, hidden, unit, highest, total, sums,
    D: tl.constexpr, WIDTH: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Attend to one more block: return the highest score, the sum of shares, that of values."""
    keys = load_rows(k, row, k_stride, D, WIDTH)
    if ROUNDED:
        steps = tl.load(k_steps + row)
        scores = tl.dot(queries, tl.trans(keys)).to(tl.float32) * steps[None, :] + hidden
    else:
        scores = tl.dot(queries, tl.trans(keys), hidden, input_precision="ieee")
    new_highest = tl.maximum(highest, tl.max(scores, 1) * unit)
    shares = tl.exp2(scores * unit[:, None] - new_highest[:, None])
    shrink = tl.exp2(highest - new_highest)
    total = total * shrink + tl.sum(shares, 1)
    values = load_rows(v, row, v_stride, D, WIDTH)
    sums = tl.dot(shares.to(values.dtype), values, sums * shrink[:, None], input_precision="ieee")
    return new_highest, total, sums


@triton.jit(do_not_specialize=SIZES)
def round_rows(
    x, mean, out, steps, x_b, x_h, x_l, heads, tokens,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Round rows, less a mean, to 8-bit integers in steps of their largest number."""
    bh = tl.program_id(1)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = row < tokens
    row = tl.minimum(row, tokens - 1)
    values = load_rows(x + skip(b, x_b, h, x_h), row, x_l, D, WIDTH).to(tl.float32)
    column = tl.arange(0, WIDTH)
    values -= tl.load(mean + bh * D + column, mask=inside(D, WIDTH), other=0)[None, :]
    step = tl.maximum(tl.max(tl.abs(values), 1), SMALLEST) / 127
    values = values / step[:, None]
    rounded = tl.where(values < 0, values - 0.5, values + 0.5).to(tl.int8)
    row = bh.to(tl.int64) * tokens + row
    wanted = there[:, None] & inside(D, WIDTH)[None, :]
    tl.store(out + row[:, None] * D + column[None, :], rounded, wanted)
    tl.store(steps + row, step, there)
