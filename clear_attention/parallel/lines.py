"""Lines: the keys and values that a rank's image tokens need, sent for and put together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..pooling import Pooling
from ..window import Window
from .halo import Halo, halo_of
from .partition import Partition
from .seat import Own
from .transport import Expected


class Lines:
    """Keys and values of lines and pooled cells, on their way between the ranks.

    What is sent has keys and values side by side, ``[B, Hkv, tokens, 2 * D]``.

    Args:
        own: Of the rank.
        halo: Of the rank.
        window: The disc, `turned` for columns; None for full attention.
        pooling: Likewise.
    """

    def __init__(
        self, own: Own, halo: Halo, window: Window | None, pooling: Pooling | None
    ) -> None:
        self._own = own
        self._halo = halo
        self._cells = None if pooling is None else _pooled(own, pooling)
        seat = own.seat
        self._pending = seat.transport.exchange(
            {rank: self._for(rank, window) for rank in seat.others},
            {rank: self._awaited(rank, pooling) for rank in seat.others},
        )

    def keys_and_values(self, extra_k: Tensor, extra_v: Tensor) -> tuple[Tensor, Tensor]:
        """Wait, and return what the image tokens attend to: text, lines, extra, pooled cells.

        Args:
            extra_k: Keys of all extra tokens, ``[B, Hkv, extra, D]``.
            extra_v: Values of them, likewise.
        """
        own, received = self._own, self._pending.wait()
        lines_k, lines_v = zip(*self._lines(received), strict=True)
        cells_k, cells_v = [], []
        if self._cells is not None:
            by_rank = {rank: tensors[-1] for rank, tensors in received.items()}
            by_rank[own.seat.rank] = self._cells
            cells = [by_rank[rank].chunk(2, 3) for rank in range(own.seat.partition.size)]
            cells_k, cells_v = zip(*cells, strict=True)
        return (
            torch.cat((own.text(own.k), *lines_k, extra_k, *cells_k), 2),
            torch.cat((own.text(own.v), *lines_v, extra_v, *cells_v), 2),
        )

    def _for(self, rank: int, window: Window | None) -> list[Tensor]:
        """Return what a rank is sent: each piece of its halo, then the cells."""
        own = self._own
        sent = [
            torch.cat((own.lines(own.k, lines), own.lines(own.v, lines)), 3)
            for owner, lines in halo_of(own.seat.partition, rank, window).pieces
            if owner == own.seat.rank
        ]
        return sent if self._cells is None else [*sent, self._cells]

    def _awaited(self, rank: int, pooling: Pooling | None) -> list[Expected]:
        """Return what a rank sends where it calls `_for`."""
        own = self._own
        tokens = [
            len(lines) * own.layout.width for owner, lines in self._halo.pieces if owner == rank
        ]
        if pooling is not None:
            tokens.append(cells_of(own.seat.partition, rank, pooling))
        return [own.expected(own.k.shape[1], count, 2 * own.k.shape[3]) for count in tokens]

    def _lines(self, received: dict[int, list[Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield keys and values of the halo's pieces, in their order."""
        own = self._own
        queues = {rank: iter(tensors) for rank, tensors in received.items()}
        for owner, lines in self._halo.pieces:
            if owner == own.seat.rank:
                yield own.lines(own.k, lines), own.lines(own.v, lines)
            else:
                k, v = next(queues[owner]).chunk(2, 3)
                yield k, v


def cells_of(partition: Partition, rank: int, pooling: Pooling | None) -> int:
    """Count the pooled cells of a rank."""
    return 0 if pooling is None else pooling.cells(len(partition.band(rank)), partition.line)


def _pooled(own: Own, pooling: Pooling) -> Tensor:
    """Return the pooled keys and values of the rank's own lines."""
    lines, width = len(own.seat.partition.band(own.seat.rank)), own.layout.width
    return torch.cat([pooling.pool(own.grid(x), lines, width) for x in (own.k, own.v)], 3)
