"""Seat: a rank's place among the others, and what its tensors hold."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..layout import TokenLayout
from .partition import Partition
from .transport import Expected, Transport


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


class Own:
    """A rank's tensors, by what they hold; further ones are laid out like them.

    Args:
        q: ``[B, H, M, D]``: text, the image tokens of the rank, its extra tokens.
        k: ``[B, Hkv, M, D]``, likewise.
        v: ``[B, Hkv, M, D]``, likewise.
        seat: Of the rank.
        layout: Of the whole sequence, `turned` for columns.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, seat: Seat, layout: TokenLayout) -> None:
        self.q, self.k, self.v = q, k, v
        self.seat = seat
        self.layout = layout
        self._image = slice(layout.text, layout.text + seat.partition.image(seat.rank))

    def text(self, tokens: Tensor) -> Tensor:
        """Select the text tokens."""
        return tokens[:, :, : self.layout.text]

    def grid(self, tokens: Tensor) -> Tensor:
        """Select the image tokens."""
        return tokens[:, :, self._image]

    def extra(self, tokens: Tensor) -> Tensor:
        """Select the extra tokens."""
        return tokens[:, :, self._image.stop :]

    def lines(self, tokens: Tensor, lines: range) -> Tensor:
        """Select lines of the rank's band, numbered as in the whole grid."""
        first = lines.start - self.seat.partition.band(self.seat.rank).start
        start = first * self.layout.width
        return self.grid(tokens)[:, :, start : start + len(lines) * self.layout.width]

    def expected(self, heads: int, tokens: int, width: int) -> Expected:
        """Return what another rank sends of so many heads and tokens."""
        return Expected((self.q.shape[0], heads, tokens, width), self.q.dtype)
