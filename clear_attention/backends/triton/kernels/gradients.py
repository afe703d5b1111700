"""The kernels of the backward pass: they recompute the probabilities from the log-sum-exp.

One goes through the lists for a tile of queries, one, with the roles exchanged, for a tile of keys:
the window is symmetric.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attend import LOG2E
from .blocks import (
    PER_ROW,
    SIZES,
    hidden_pairs,
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


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=PER_ROW)
def backward_queries(
    q, k, v, shared_k, shared_v, grad, lse, delta, out,
    first, blocks, offsets, places, others, own,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l,
    shared_k_b, shared_k_h, shared_k_l, shared_v_b, shared_v_h, shared_v_l,
    grad_b, grad_h, grad_l, out_b, out_h, out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of one tile of queries through the keys of one split."""
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    TOKENS: tl.constexpr = ROWS * COLUMNS
    first_token, token, there = tile(pid, tokens, height, width, ROWS, COLUMNS)
    queries = load_rows(q + skip(b, q_b, h, q_h), token, q_l, D, WIDTH)
    grads = load_rows(grad + skip(b, grad_b, h, grad_h), token, grad_l, D, WIDTH)
    own_row = bh.to(tl.int64) * tokens + token
    own_lse = tl.load(lse + own_row) * LOG2E
    own_delta = tl.load(delta + own_row)
    unit = scale * LOG2E
    sums = tl.zeros([TOKENS, WIDTH], tl.float32)

    shared_k += skip(b, shared_k_b, h, shared_k_h)
    shared_v += skip(b, shared_v_b, h, shared_v_h)
    start, stop = shared_blocks(split, shared_count, blocks_per_split, BLOCK)
    for block in range(start, stop):
        row, hidden = shared_block(block, shared_count, TOKENS, BLOCK)
        sums = _add_to_queries(
            queries, grads, own_lse, own_delta, shared_k, shared_k_l, shared_v, shared_v_l,
            row, hidden, unit, sums, D, WIDTH,
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
            sums = _add_to_queries(
                queries, grads, own_lse, own_delta, k, k_l, v, v_l, row, hidden, unit, sums,
                D, WIDTH,
            )  # fmt: skip
            row, place = next_row, next_place

    batches = tl.num_programs(1) // heads
    out += skip(split * batches + b, out_b, h, out_h)
    store_rows(out, token, out_l, sums * scale, there, D, WIDTH)


@triton.jit
def _add_to_queries(
    queries, grads, own_lse, own_delta, k, k_stride, v, v_stride, row, hidden, unit, sums,
    D: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add to the queries' gradients what one more block of keys gives, still without the scale."""
    keys = load_rows(k, row, k_stride, D, WIDTH)
    scores = tl.dot(queries, tl.trans(keys), hidden, input_precision="ieee")
    shares = tl.exp2(scores * unit - own_lse[:, None])
    values = load_rows(v, row, v_stride, D, WIDTH)
    slopes = tl.dot(grads, tl.trans(values), input_precision="ieee")
    slopes = shares * (slopes - own_delta[:, None])
    return tl.dot(slopes.to(keys.dtype), keys, sums, input_precision="ieee")


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=PER_ROW)
def backward_keys(
    k, v, q, grad, lse, delta, shared_q, shared_grad, shared_lse, shared_delta, k_out, v_out,
    first, blocks, offsets, places, others, own,
    k_b, k_h, k_l, v_b, v_h, v_l, q_b, q_h, q_l, grad_b, grad_h, grad_l,
    shared_q_b, shared_q_h, shared_q_l, shared_grad_b, shared_grad_h, shared_grad_l,
    k_out_b, k_out_h, k_out_l, v_out_b, v_out_h, v_out_l,
    heads, tokens, height, width, shared_count, blocks_per_split, scale, radius_squared,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one tile of keys and values through the queries of one split."""
    pid, bh, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    TOKENS: tl.constexpr = ROWS * COLUMNS
    first_token, token, there = tile(pid, tokens, height, width, ROWS, COLUMNS)
    keys = load_rows(k + skip(b, k_b, h, k_h), token, k_l, D, WIDTH)
    values = load_rows(v + skip(b, v_b, h, v_h), token, v_l, D, WIDTH)
    unit = scale * LOG2E
    k_sums = tl.zeros([TOKENS, WIDTH], tl.float32)
    v_sums = tl.zeros([TOKENS, WIDTH], tl.float32)

    shared_q += skip(b, shared_q_b, h, shared_q_h)
    shared_grad += skip(b, shared_grad_b, h, shared_grad_h)
    shared_lse += bh.to(tl.int64) * shared_count
    shared_delta += bh.to(tl.int64) * shared_count
    start, stop = shared_blocks(split, shared_count, blocks_per_split, BLOCK)
    for block in range(start, stop):
        row, hidden = shared_block(block, shared_count, TOKENS, BLOCK)
        k_sums, v_sums = _add_to_keys(
            keys, values, shared_q, shared_q_l, shared_grad, shared_grad_l, shared_lse,
            shared_delta, row, hidden, unit, k_sums, v_sums, D, WIDTH,
        )  # fmt: skip
    if WINDOW:
        q += skip(b, q_b, h, q_h)
        grad += skip(b, grad_b, h, grad_h)
        lse += bh.to(tl.int64) * tokens
        delta += bh.to(tl.int64) * tokens
        own = own_places(own, TOKENS)
        entry, count = listed_entries(pid, first, blocks, BLOCK)
        row, place = listed(entry, first_token, offsets, places)
        for block in range(0, count):
            # One block ahead: rows can be requested as soon as there is room for them.
            following = entry + tl.minimum(block + 1, count - 1) * BLOCK
            next_row, next_place = listed(following, first_token, offsets, places)
            hidden = hidden_pairs(own, place, others, radius_squared)
            k_sums, v_sums = _add_to_keys(
                keys, values, q, q_l, grad, grad_l, lse, delta, row, hidden, unit,
                k_sums, v_sums, D, WIDTH,
            )  # fmt: skip
            row, place = next_row, next_place

    batches = tl.num_programs(1) // heads
    k_out += skip(split * batches + b, k_out_b, h, k_out_h)
    v_out += skip(split * batches + b, v_out_b, h, v_out_h)
    store_rows(k_out, token, k_out_l, k_sums * scale, there, D, WIDTH)
    store_rows(v_out, token, v_out_l, v_sums, there, D, WIDTH)


@triton.jit
def _add_to_keys(
    keys, values, q, q_stride, grad, grad_stride, lse, delta, row, hidden, unit, k_sums, v_sums,
    D: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add to the gradients of keys and values what one more block of queries gives."""
    queries = load_rows(q, row, q_stride, D, WIDTH)
    scores = tl.dot(keys, tl.trans(queries), hidden, input_precision="ieee")
    shares = tl.exp2(scores * unit - (tl.load(lse + row) * LOG2E)[None, :])
    grads = load_rows(grad, row, grad_stride, D, WIDTH)
    v_sums = tl.dot(shares.to(grads.dtype), grads, v_sums, input_precision="ieee")
    slopes = tl.dot(values, tl.trans(grads), input_precision="ieee")
    slopes = shares * (slopes - tl.load(delta + row)[None, :])
    k_sums = tl.dot(slopes.to(queries.dtype), queries, k_sums, input_precision="ieee")
    return k_sums, v_sums
