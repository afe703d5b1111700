"""CLEAR attention of one picture on several ranks: each holds the queries and keys of its band.

For every attention call, each rank

1. sends the keys and values that other ranks' windows reach, its pooled cells, and its share of
   the extra tokens;
2. attends from all text and extra tokens to its own keys;
3. shares these parts, of which each rank merges those of its own tokens in the order of ranks;
4. attends from its image tokens to text, extra and pooled tokens, its lines and their halo.

Softmax over a union of keys is the merge of the softmaxes over its parts by log-sum-exp, so that
nothing is averaged and nothing is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..api import attention
from ..backends import Call
from ..backends.call import wants_gradients
from ..layout import TokenLayout
from ..pooling import Pooling
from ..precision import unrounded
from ..queries import Queries
from ..window import Window
from .global_tokens import GlobalParts, all_extra
from .halo import Halo, halo_of, turned
from .lines import Lines, cells_of
from .partition import Partition
from .seat import Own, Seat


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seat: Seat,
    layout: TokenLayout,
    window: Window | None,
    *,
    pooling: Pooling | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Compute a rank's part of `clear_attention.attention`.

    Args:
        q: ``[B, H, M, D]``: text, the image tokens of the rank, its extra tokens, in the order of
            `Partition.of`.
        k: ``[B, Hkv, M, D]``, likewise; Hkv is H or a divisor of it.
        v: ``[B, Hkv, M, D]``, likewise.
        seat: Of this rank; every rank makes the same calls.
        layout: Of the whole sequence.
        window: The disc, or None for full attention.
        pooling: The pooled branch, or None.
        scale: Factor on the scores; None is ``D ** -0.5``.
        backend: For the image tokens: "auto", or a name.

    Returns:
        ``[B, H, M, D]`` for the rank's tokens.

    Raises:
        ValueError: The tensors do not fit the layout, gradients are wanted, or the named backend
            cannot take the call.
        Aborted: Another rank has failed.
    """
    _check(q, k, v, seat, layout, pooling)
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if seat.partition.columns:
        layout, window, pooling = turned(layout, window, pooling)
    own = Own(q, k, v, seat, layout)
    halo = halo_of(seat.partition, seat.rank, window)
    with unrounded(q.device):
        extra = all_extra(own)
        lines = Lines(own, halo, window, pooling)
        parts = GlobalParts(own, extra, factor)
        keys, values = lines.keys_and_values(*extra[1:])
        grid, asked = sub_layout(seat.partition, seat.rank, layout, halo, pooling)
        image = attention(
            own.grid(q),
            keys,
            values,
            grid,
            halo.window,
            queries=asked,
            scale=factor,
            backend=backend,
        )
    assert isinstance(image, Tensor)
    text = layout.text
    merged = parts.merged()
    return torch.cat((merged[:, :, :text], image, merged[:, :, text:]), 2)


def call_of(
    q: Tensor,
    k: Tensor,
    seat: Seat,
    layout: TokenLayout,
    window: Window | None,
    pooling: Pooling | None,
    scale: float,
) -> Call:
    """Return the call by which a rank's image tokens attend, for the choice of a backend.

    Arguments are those of `attend`.
    """
    groups = q.shape[1] // k.shape[1]
    return band_call(seat.partition, seat.rank, layout, window, pooling, scale, groups)


def band_call(
    partition: Partition,
    rank: int,
    layout: TokenLayout,
    window: Window | None,
    pooling: Pooling | None,
    scale: float,
    groups: int = 1,
) -> Call:
    """Return the call by which the image tokens of a band attend.

    Args:
        partition: Of the grid.
        rank: Whose band.
        layout: Of the whole sequence.
        window: The disc, or None for full attention.
        pooling: The pooled branch, or None.
        scale: Factor on the scores.
        groups: Heads of queries to each head of keys.
    """
    if partition.columns:
        layout, window, pooling = turned(layout, window, pooling)
    halo = halo_of(partition, rank, window)
    grid, asked = sub_layout(partition, rank, layout, halo, pooling)
    return Call(grid, halo.window, None, scale, queries=asked, groups=groups)


def sub_layout(
    partition: Partition, rank: int, layout: TokenLayout, halo: Halo, pooling: Pooling | None
) -> tuple[TokenLayout, Queries]:
    """Return the layout of a rank's keys and which of them ask; pooled cells are extra tokens.

    Args:
        partition: Of the grid.
        rank: Whose keys.
        layout: Of the whole sequence, `turned` for columns.
        halo: Of the rank.
        pooling: Likewise.
    """
    cells = 0 if pooling is None else pooling.cells(layout.height, layout.width)
    keys = TokenLayout(layout.text, halo.lines, layout.width, layout.extra + cells)
    rows = len(partition.band(rank))
    return keys, Queries(text=False, extra=False, first_row=halo.first, rows=rows)


def received_bytes(
    partition: Partition,
    rank: int,
    layout: TokenLayout,
    window: Window | None,
    *,
    pool_factor: int = 0,
    batch: int = 1,
    heads: int,
    key_heads: int | None = None,
    head_dim: int,
    itemsize: int = 2,
) -> int:
    """Return the bytes that a rank receives in one attention call.

    Args:
        partition: Of the grid.
        rank: Who receives.
        layout: Of the whole sequence.
        window: The disc, or None for full attention.
        pool_factor: Edge of a pooled cell, 0 for none.
        batch: Sequences.
        heads: Of the queries.
        key_heads: Of keys and values; None are as many.
        head_dim: Width of a head.
        itemsize: Bytes of a value.
    """
    pooling = Pooling(pool_factor) if pool_factor else None
    if partition.columns:
        layout, window, pooling = turned(layout, window, pooling)
    key_heads = heads if key_heads is None else key_heads
    others = [one for one in range(partition.size) if one != rank]
    value = batch * head_dim * itemsize
    lines = sum(
        len(piece) for owner, piece in halo_of(partition, rank, window).pieces if owner != rank
    )
    cells = sum(cells_of(partition, one, pooling) for one in others)
    extra = sum(len(partition.shared(one)) for one in others)
    asked = layout.text + sum(map(len, partition.own_extra(rank, layout.extra)))
    lse = batch * heads * (8 if itemsize == 8 else 4)
    return (
        2 * key_heads * value * (lines * layout.width + cells)
        + extra * value * (heads + 2 * key_heads)
        + len(others) * asked * (heads * value + lse)
    )


def _check(
    q: Tensor, k: Tensor, v: Tensor, seat: Seat, layout: TokenLayout, pooling: Pooling | None
) -> None:
    partition = seat.partition
    if (layout.height, layout.width) != (partition.height, partition.width):
        raise ValueError(
            f"layout must have the partition's grid of {partition.height} x {partition.width}, "
            f"got {layout}."
        )
    tokens = partition.tokens(seat.rank, layout)
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.shape[2] != tokens:
            raise ValueError(
                f"{name} must hold the {tokens} tokens of rank {seat.rank}, got {tensor.shape[2]}."
            )
    if wants_gradients(pooling, q, k, v):
        raise ValueError("attend must run without gradients, got tensors that want them.")
    if pooling is not None and any(cut % pooling.factor for cut in partition.cuts[1:-1]):
        raise ValueError(
            f"The cuts must be multiples of the pooling factor {pooling.factor}, got "
            f"{partition.cuts}."
        )
