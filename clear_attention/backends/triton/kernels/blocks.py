"""What the kernels have in common: a tile's tokens, the blocks that it visits, rows in memory.

A tile visits the shared tokens first, one block after the other, then the blocks of its list. These
are two loops: shared tokens need neither lists nor places, and each loop reads from one tensor.
(Triton 3.6 and 3.7 cannot compile a choice between two pointers for AMD.) Without a window there
are only shared tokens.

Sizes are run-time integers: nothing is compiled anew for another picture. Tensor cores want a power
of two of numbers per row: other rows are filled up with zeros on the way.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import lists

PLACE: tl.constexpr = tl.constexpr(lists.PLACE)
ALIGNED: tl.constexpr = tl.constexpr(lists.ALIGNED)
# A power of two: its product with the unit of a row's scores is exact. Compilers fuse the product
# and the subtraction of the row's maximum, which is rounded. Any other number would leave that
# rounding error, near 1e21, as the exponent of a row of which no key was seen yet.
HIDDEN: tl.constexpr = tl.constexpr(-(2.0**100))

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
# One number per row, each read by itself: a kernel is not compiled anew where they start elsewhere.
PER_ROW = ["lse", "delta", "shared_lse", "shared_delta"]


@triton.jit
def tile(pid, tokens, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the first token of a tile, its tokens, and which of them are there."""
    tiles_x = tl.cdiv(width, COLUMNS)
    first_y, first_x = pid // tiles_x * ROWS, pid % tiles_x * COLUMNS
    index = tl.arange(0, ROWS * COLUMNS)
    y, x = first_y + index // COLUMNS, first_x + index % COLUMNS
    token = y * width + x
    there = (y < height) & (x < width) & (token < tokens)
    return first_y * width + first_x, tl.where(there, token, tokens - 1), there


@triton.jit
def shared_blocks(split, shared_count, blocks_per_split, BLOCK: tl.constexpr):
    """Return the first block of shared tokens that a split visits, and the one behind its last."""
    start = split * blocks_per_split
    return start, tl.minimum(start + blocks_per_split, tl.cdiv(shared_count, BLOCK))


@triton.jit
def shared_block(block, shared_count, TOKENS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the rows of a block of shared tokens, and what their products start from.

    That is zero, and `HIDDEN` for what only fills the last block.
    """
    near = block * BLOCK + tl.arange(0, BLOCK)
    hidden = tl.where(near < shared_count, 0.0, HIDDEN)[None, :]
    return tl.minimum(near, shared_count - 1), tl.broadcast_to(hidden, [TOKENS, BLOCK])


@triton.jit
def listed_entries(pid, first, blocks, BLOCK: tl.constexpr):
    """Return where the first block of a tile's list lies, and how many blocks there are."""
    return tl.load(first + pid) + tl.arange(0, BLOCK), tl.load(blocks + pid)


@triton.jit
def listed(entry, first_token, offsets, places):
    """Return the rows that a block of a list stands for, and their places."""
    return first_token + tl.load(offsets + entry), tl.load(places + entry)


@triton.jit
def own_places(own, TOKENS: tl.constexpr):
    """Return the tile's side of the scalar product that says what is visible."""
    return tl.load(own + _of_places(tl.arange(0, TOKENS)))


@triton.jit
def hidden_pairs(own, place, others, radius_squared):
    """Return zero for visible pairs and `HIDDEN` for others: what their products start from."""
    at = tl.load(others + _of_places(place))
    distance = tl.dot(own, tl.trans(at), input_precision="ieee")
    return tl.where(distance < radius_squared, 0.0, HIDDEN)


@triton.jit
def _of_places(place):
    return place[:, None] * PLACE + tl.arange(0, PLACE)[None, :]


@triton.jit
def skip(b, stride_b, h, stride_h):
    """Return how far a head of a sequence lies from the first one."""
    return tl.multiple_of(b * stride_b + h * stride_h, ALIGNED)


@triton.jit
def load_rows(base, row, stride, D: tl.constexpr, WIDTH: tl.constexpr):
    """Load rows of D numbers, and zeros up to WIDTH; the stride is in units of `ALIGNED` numbers.

    In these units a row's start fits into 32 bits, which are multiplied in one instruction.
    """
    pointers = _pointers(base, row, stride, WIDTH)
    if WIDTH == D:
        numbers = tl.load(pointers)
    else:
        numbers = tl.load(pointers, mask=inside(D, WIDTH)[None, :], other=0)
    return numbers


@triton.jit
def store_rows(base, row, stride, numbers, there, D: tl.constexpr, WIDTH: tl.constexpr):
    """Store the first D numbers of rows, where they are there."""
    pointers = _pointers(base, row, stride, WIDTH)
    there = there[:, None] & inside(D, WIDTH)[None, :]
    tl.store(pointers, numbers.to(base.dtype.element_ty), there)


@triton.jit
def inside(D: tl.constexpr, WIDTH: tl.constexpr):
    """Return which of WIDTH numbers are among the first D."""
    return tl.arange(0, WIDTH) < D


@triton.jit
def _pointers(base, row, stride, WIDTH: tl.constexpr):
    start = (row * stride).to(tl.int64) * ALIGNED
    return base + start[:, None] + tl.arange(0, WIDTH)[None, :]
