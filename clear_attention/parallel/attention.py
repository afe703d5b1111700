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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import attention
from ..backends import Call
from ..backends.call import wants_gradients
from ..layout import TokenLayout
from ..partial import Part, attend_part
from ..pooling import Pooling
from ..precision import accumulation_dtype, unrounded
from ..queries import Queries
from ..window import Window
from .halo import Halo, halo_of, turned
from .merge import merge_all
from .partition import Partition
from .transport import Awaited, Expected, Transport


@dataclass(frozen=True, eq=False)
class Seat:
    """A rank's place among the others.

    Attributes:
        partition: Who computes what.
        transport: The way to the others.
    """

    partition: Partition
    transport: Transport

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return self.transport.rank

    @property
    def others(self) -> list[int]:
        """The other ranks, in order."""
        return [rank for rank in range(self.partition.size) if rank != self.rank]


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
    own = _Own(q, k, v, seat, layout)
    halo = halo_of(seat.partition, seat.rank, window)
    with unrounded(q.device):
        extra = _all_extra(own)
        lines = seat.transport.exchange(
            {rank: _lines_for(own, rank, window, pooling) for rank in seat.others},
            _lines_awaited(own, halo, pooling),
        )
        parts = _GlobalParts(own, extra, factor)
        keys, values = _keys_and_values(own, extra, halo, pooling, lines.wait())
        grid, asked = sub_layout(seat, layout, halo, pooling)
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
    if seat.partition.columns:
        layout, window, pooling = turned(layout, window, pooling)
    halo = halo_of(seat.partition, seat.rank, window)
    grid, asked = sub_layout(seat, layout, halo, pooling)
    groups = q.shape[1] // k.shape[1]
    return Call(grid, halo.window, None, scale, queries=asked, groups=groups)


def sub_layout(
    seat: Seat, layout: TokenLayout, halo: Halo, pooling: Pooling | None
) -> tuple[TokenLayout, Queries]:
    """Return the layout of a rank's keys and which of them ask; pooled cells are extra tokens.

    Args:
        seat: Of the rank.
        layout: Of the whole sequence, `turned` for columns.
        halo: Of the rank.
        pooling: Likewise.
    """
    cells = 0 if pooling is None else pooling.cells(layout.height, layout.width)
    keys = TokenLayout(layout.text, halo.lines, layout.width, layout.extra + cells)
    rows = len(seat.partition.band(seat.rank))
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
    cells = sum(_cells(partition, one, pooling) for one in others)
    extra = sum(len(partition.shared(one)) for one in others)
    asked = layout.text + sum(map(len, partition.own_extra(rank, layout.extra)))
    lse = batch * heads * (8 if itemsize == 8 else 4)
    return (
        2 * key_heads * value * (lines * layout.width + cells)
        + extra * value * (heads + 2 * key_heads)
        + len(others) * asked * (heads * value + lse)
    )


class _Own:
    """A rank's tensors, by what they hold."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, seat: Seat, layout: TokenLayout) -> None:
        self.q, self.k, self.v = q, k, v
        self.seat = seat
        self.layout = layout
        self.image = slice(layout.text, layout.text + seat.partition.image(seat.rank))

    def grid(self, tokens: Tensor) -> Tensor:
        return tokens[:, :, self.image]

    def lines(self, tokens: Tensor, lines: range) -> Tensor:
        """Select lines of the rank's band, numbered as in the whole grid."""
        first = lines.start - self.seat.partition.band(self.seat.rank).start
        width = self.layout.width
        start = self.image.start + first * width
        return tokens[:, :, start : start + len(lines) * width]

    def extra(self, tokens: Tensor) -> Tensor:
        return tokens[:, :, self.image.stop :]

    def text(self, tokens: Tensor) -> Tensor:
        return tokens[:, :, : self.layout.text]

    def expected(self, heads: int, tokens: int, width: int) -> Expected:
        return Expected((self.q.shape[0], heads, tokens, width), self.q.dtype)


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


def _all_extra(own: _Own) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of all extra tokens, ``[B, H, extra, D]``."""
    seat, partition = own.seat, own.seat.partition
    q, k, v = (own.extra(x) for x in (own.q, own.k, own.v))
    if not partition.all_shared:
        return q, k, v
    before, mine, _ = partition.own_extra(seat.rank, own.layout.extra)
    cut = slice(len(before), len(before) + len(mine))
    heads, depth = own.q.shape[1] + 2 * own.k.shape[1], own.q.shape[3]
    sent = torch.cat([x[:, :, cut] for x in (q, k, v)], 1)
    pending = seat.transport.exchange(
        {rank: [sent] for rank in seat.others},
        {rank: [own.expected(heads, len(partition.shared(rank)), depth)] for rank in seat.others},
    )
    shared = {rank: tensors[0] for rank, tensors in pending.wait().items()} | {seat.rank: sent}
    whole = torch.cat([shared[rank] for rank in range(partition.size)], 2)
    split = whole.split([x.shape[1] for x in (q, k, v)], 1)
    return tuple(
        torch.cat((x[:, :, : cut.start], part, x[:, :, cut.stop :]), 2)
        for x, part in zip((q, k, v), split, strict=True)
    )  # pyright: ignore[reportReturnType] - three of them


def _lines_for(
    own: _Own, rank: int, window: Window | None, pooling: Pooling | None
) -> list[Tensor]:
    """Return what a rank is sent: keys and values of lines, then of pooled cells."""
    halo = halo_of(own.seat.partition, rank, window)
    sent = [
        torch.cat((own.lines(own.k, lines), own.lines(own.v, lines)), 3)
        for owner, lines in halo.pieces
        if owner == own.seat.rank
    ]
    if pooling is not None:
        sent.append(torch.cat(_pooled(own, pooling), 3))
    return sent


def _pooled(own: _Own, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Return the pooled keys and values of the rank's own lines."""
    lines, width = len(own.seat.partition.band(own.seat.rank)), own.layout.width
    k, v = (pooling.pool(own.grid(x), lines, width) for x in (own.k, own.v))
    return k, v


def _cells(partition: Partition, rank: int, pooling: Pooling | None) -> int:
    """Count the pooled cells of a rank."""
    return 0 if pooling is None else pooling.cells(len(partition.band(rank)), partition.line)


def _lines_awaited(own: _Own, halo: Halo, pooling: Pooling | None) -> Awaited:
    """Return what a rank receives where others call `_lines_for`."""
    heads, width = own.k.shape[1], 2 * own.k.shape[3]
    awaited: dict[int, list[Expected]] = {rank: [] for rank in own.seat.others}
    for owner, lines in halo.pieces:
        if owner != own.seat.rank:
            awaited[owner].append(own.expected(heads, len(lines) * own.layout.width, width))
    if pooling is not None:
        for rank in own.seat.others:
            cells = _cells(own.seat.partition, rank, pooling)
            awaited[rank].append(own.expected(heads, cells, width))
    return awaited


def _keys_and_values(
    own: _Own,
    extra: tuple[Tensor, Tensor, Tensor],
    halo: Halo,
    pooling: Pooling | None,
    received: dict[int, list[Tensor]],
) -> tuple[Tensor, Tensor]:
    """Return the keys and values of the image tokens: text, lines, extra, pooled cells."""
    grid_k, grid_v = zip(*_lines(own, halo, received), strict=True)
    cells_k, cells_v = ([], [])
    if pooling is not None:
        mine = _pooled(own, pooling)
        cells = [
            mine if rank == own.seat.rank else received[rank][-1].chunk(2, 3)
            for rank in range(own.seat.partition.size)
        ]
        cells_k, cells_v = zip(*cells, strict=True)
    _, extra_k, extra_v = extra
    return (
        torch.cat((own.text(own.k), *grid_k, extra_k, *cells_k), 2),
        torch.cat((own.text(own.v), *grid_v, extra_v, *cells_v), 2),
    )


def _lines(
    own: _Own, halo: Halo, received: dict[int, list[Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield keys and values of the halo's pieces, in their order."""
    queues = {rank: iter(tensors) for rank, tensors in received.items()}
    for owner, lines in halo.pieces:
        if owner == own.seat.rank:
            yield own.lines(own.k, lines), own.lines(own.v, lines)
        else:
            k, v = next(queues[owner]).chunk(2, 3)
            yield k, v


class _GlobalParts:
    """Attention from text and extra tokens: begun for the rank's own keys, merged over all."""

    def __init__(self, own: _Own, extra: tuple[Tensor, Tensor, Tensor], scale: float) -> None:
        self._own = own
        part = self._part(extra, scale)
        seat = own.seat
        sent = {rank: [*self._rows(part, rank)] for rank in seat.others}
        self._mine = self._rows(part, seat.rank)
        dtype = accumulation_dtype(own.q.dtype)
        batch, heads, rows, depth = self._mine.out.shape
        expected = [
            Expected((batch, heads, rows, depth), own.q.dtype),
            Expected((batch, heads, rows), dtype),
        ]
        self._pending = seat.transport.exchange(sent, dict.fromkeys(seat.others, expected))

    def merged(self) -> Tensor:
        """Wait for the other ranks' parts, and return ``[B, H, own text and extra, D]``."""
        parts = {rank: Part(*tensors) for rank, tensors in self._pending.wait().items()}
        parts[self._own.seat.rank] = self._mine
        return merge_all([parts[rank] for rank in range(self._own.seat.partition.size)]).out

    def _part(self, extra: tuple[Tensor, Tensor, Tensor], scale: float) -> Part:
        """Attend to the rank's lines and its share of the extra tokens; rank 0 to the rest too."""
        own, (extra_q, extra_k, extra_v) = self._own, extra
        shared = own.seat.partition.shared(own.seat.rank)
        rest = own.seat.partition.all_shared
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for chosen, x, behind in ((keys, own.k, extra_k), (values, own.v, extra_v)):
            chosen += [own.grid(x), behind[:, :, shared.start : shared.stop]]
            if own.seat.rank == 0:
                chosen += [own.text(x), behind[:, :, : rest.start], behind[:, :, rest.stop :]]
        q = torch.cat((own.text(own.q), extra_q), 2)
        k, v = (_for_all_heads(torch.cat(x, 2), q.shape[1]) for x in (keys, values))
        return attend_part(q, k, v, scale=scale)

    def _rows(self, part: Part, rank: int) -> Part:
        """Select the tokens that a rank holds."""
        layout, partition = self._own.layout, self._own.seat.partition
        if not partition.all_shared:
            return part
        ranges: Sequence[range] = [
            range(layout.text),
            *(
                range(layout.text + one.start, layout.text + one.stop)
                for one in partition.own_extra(rank, layout.extra)
            ),
        ]
        return Part(
            *(torch.cat([x[:, :, one.start : one.stop] for one in ranges], 2) for x in part)
        )


def _for_all_heads(keys: Tensor, heads: int) -> Tensor:
    """Repeat grouped keys for their query heads."""
    groups = heads // keys.shape[1]
    return keys if groups == 1 else keys.repeat_interleave(groups, 1)
