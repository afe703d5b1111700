"""The method's original formulation: FlexAttention over row-major tokens, compiled per size.

Written from the paper (arXiv 2412.16112, section 3). The masks are functions of positions, the
blocks are 128 consecutive tokens: pieces of rows, which overlap many windows a little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.gpu.exact import Case

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
TEXT = 512  # the original code has it fixed

# Elements of the mask that are looked at together: 2**28 of them take about 5 GB.
BAND_ELEMENTS = 2**28
# Every size and radius is a compilation of its own; torch gives up after eight.
COMPILATIONS = 64

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def prepare(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Return a call that computes one layer, the pooling included; the first one compiles."""
    mask = block_mask(case, q.device)
    attend = _kernel(q.device.type)
    layout, pooling = case.layout, case.pooling

    def with_pooled(x: Tensor) -> Tensor:
        if pooling is None:
            return x
        pooled = pooling.pool(x[:, :, layout.image_slice], case.grid, case.grid)
        return torch.cat((x, pooled), 2)

    return lambda: attend(q, with_pooled(k), with_pooled(v), block_mask=mask)


def block_mask(case: Case, device: torch.device) -> BlockMask:
    """Sort the blocks of keys of each block of queries into whole, cut and hidden ones.

    What `create_block_mask` does, band by band: uncompiled it holds the whole mask, several times.
    """
    from torch.nn.attention.flex_attention import BlockMask

    mask_mod = sees(case)
    queries = case.layout.tokens
    keys = queries + (case.pooling.cells(case.grid, case.grid) if case.pooling else 0)
    columns = -(-keys // BLOCK)
    bands: list[tuple[Tensor, Tensor]] = []
    step = BLOCK * max(1, BAND_ELEMENTS // (columns * BLOCK * BLOCK))
    for start in range(0, queries, step):
        bands.append(_band(mask_mod, start, min(queries, start + step), keys, device))
    some, whole = (torch.cat(tables) for tables in zip(*bands, strict=True))
    return BlockMask.from_kv_blocks(
        *_lists(some & ~whole),
        *_lists(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(queries, keys),
        compute_q_blocks=False,
    )


def sees(case: Case) -> MaskMod:
    """Return the mask as a function of positions; pooled keys lie behind the grid."""
    text, width, reach = case.text, case.grid, case.radius * case.radius
    tokens = case.layout.tokens

    def local(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        q, k = query - text, key - text
        dy, dx = q // width - k // width, q % width - k % width
        return (query < text) | (key < text) | (dy * dy + dx * dx < reach)

    def pooled(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        coarse = (key >= tokens) & (query >= text)
        return coarse | ((key < tokens) & local(b, h, query, key))

    return pooled if case.factor else local


@functools.cache
def _kernel(device_type: str) -> Callable[..., Tensor]:
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    attend: Any = flex_attention
    if device_type == "cpu":  # compiling for the CPU wants a C++ compiler and minutes
        return attend
    config.recompile_limit = COMPILATIONS
    return torch.compile(attend, dynamic=False, fullgraph=True)


def _band(
    mask_mod: MaskMod, start: int, stop: int, keys: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return which blocks hold a visible pair and which no hidden one, ``[rows, columns]`` each.

    Behind the last token nothing is visible, so that a ragged block is never whole.
    """
    with device:
        query = torch.arange(start, stop, dtype=torch.int32)[:, None]
        key = torch.arange(keys, dtype=torch.int32)
        zero = torch.zeros((), dtype=torch.int32)
    mask = mask_mod(zero, zero, query, key)
    mask = torch.nn.functional.pad(mask, (0, -keys % BLOCK, 0, -(stop - start) % BLOCK))
    blocks = mask.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))
    return blocks.any(3).any(1), blocks.all(3).all(1)


def _lists(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks of each row are chosen, and which, these first."""
    order = chosen.byte().argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1).int()[None, None], order.int()[None, None].contiguous()
