"""Global tokens (text and extra): each rank attends from all of them to its own keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..partial import Part, attend_part
from ..precision import accumulation_dtype
from .merge import merge_all
from .seat import Own
from .transport import Expected


def all_extra(own: Own) -> tuple[Tensor, Tensor, Tensor]:
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


class GlobalParts:
    """Attention from text and extra tokens: begun for the rank's own keys, merged over all.

    Args:
        own: Of the rank.
        extra: Of `all_extra`.
        scale: Factor on the scores.
    """

    def __init__(self, own: Own, extra: tuple[Tensor, Tensor, Tensor], scale: float) -> None:
        self._own = own
        # Dense, as it arrives elsewhere: the bits of a merge depend on how its elements lie.
        part = Part(*(x.contiguous() for x in self._part(extra, scale)))
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
        ordered = [parts[rank] for rank in range(self._own.seat.partition.size)]
        own = self._own_extra()
        if own.start == own.stop:
            return merge_all(ordered).out
        # What all ranks hold, apart: the last bits of exp and log depend on where in a tensor an
        # element lies, and so on how many extra tokens are a rank's own.
        everybodys = merge_all([_without(part, own) for part in ordered]).out
        alone = merge_all([_only(part, own) for part in ordered]).out
        before, behind = everybodys[:, :, : own.start], everybodys[:, :, own.start :]
        return torch.cat((before, alone, behind), 2)

    def _own_extra(self) -> slice:
        """Return where the extra tokens that no other rank holds are in what is merged."""
        layout, seat = self._own.layout, self._own.seat
        before, mine, _ = seat.partition.own_extra(seat.rank, layout.extra)
        start = layout.text + len(before)
        return slice(start, start + len(mine))

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


def _only(part: Part, rows: slice) -> Part:
    return Part(*(x[:, :, rows] for x in part))


def _without(part: Part, rows: slice) -> Part:
    return Part(*(torch.cat((x[:, :, : rows.start], x[:, :, rows.stop :]), 2) for x in part))
