"""Partition: which rank computes which rows or columns of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..layout import TokenLayout


@dataclass(frozen=True)
class Partition:
    """The bands of a grid, one for each rank.

    The grid is cut across its longer side, because what ranks exchange is as long as the other one.
    The tokens of a rank lie line by line along the cut: a band of columns is transposed.

    Text is computed by every rank. Of the extra tokens, a range may be shared out too.

    Args:
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        cuts: First line of each band and, at the end, the number of lines; lines are rows, or
            columns.
        columns: Whether the lines are columns.
        extra: First extra token of each rank, counted from the first behind the grid, and the one
            behind the last; empty where every rank computes all of them.

    Raises:
        ValueError: The bands do not make up the grid.
    """

    height: int
    width: int
    cuts: tuple[int, ...]
    columns: bool = False
    extra: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ascending = all(one < other for one, other in pairwise(self.cuts))
        if len(self.cuts) < 2 or self.cuts[0] or self.cuts[-1] != self.lines or not ascending:
            raise ValueError(
                f"Partition.cuts must ascend from 0 to the {self.lines} lines of the grid, got "
                f"{self.cuts}."
            )
        ascending = all(one <= other for one, other in pairwise(self.extra))
        if self.extra and (len(self.extra) != len(self.cuts) or self.extra[0] < 0 or not ascending):
            raise ValueError(
                f"Partition.extra must ascend in {len(self.cuts)} numbers of at least 0, got "
                f"{self.extra}."
            )

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.cuts) - 1

    @property
    def lines(self) -> int:
        """Lines that are shared out: rows, or columns."""
        return self.width if self.columns else self.height

    @property
    def unit(self) -> str:
        """What the lines are called."""
        return "columns" if self.columns else "rows"

    @property
    def line(self) -> int:
        """Tokens of a line."""
        return self.height if self.columns else self.width

    def band(self, rank: int) -> range:
        """Return the lines of a rank."""
        return range(self.cuts[rank], self.cuts[rank + 1])

    def image(self, rank: int) -> int:
        """Count the image tokens of a rank."""
        return len(self.band(rank)) * self.line

    def shared(self, rank: int) -> range:
        """Return the shared extra tokens of a rank, counted from the first behind the grid."""
        return range(self.extra[rank], self.extra[rank + 1]) if self.extra else range(0)

    @property
    def all_shared(self) -> range:
        """The extra tokens that are shared out."""
        return range(self.extra[0], self.extra[-1]) if self.extra else range(0)

    def own_extra(self, rank: int, extra: int) -> list[range]:
        """Return which of the extra tokens a rank holds, in their order: three ranges.

        Those in front of the shared ones, its share of these, and those behind.

        Args:
            rank: Of the sequence.
            extra: Extra tokens of the layout.
        """
        if not self.extra:
            return [range(extra), range(extra, extra), range(extra, extra)]
        start, stop = self.extra[0], self.extra[-1]
        return [range(start), self.shared(rank), range(stop, extra)]

    def tokens(self, rank: int, layout: TokenLayout) -> int:
        """Count the tokens of a rank's sequence."""
        extra = sum(map(len, self.own_extra(rank, layout.extra)))
        return layout.text + self.image(rank) + extra

    def of(self, tokens: Tensor, layout: TokenLayout, rank: int, dim: int = 1) -> Tensor:
        """Select a rank's tokens out of a whole sequence, in the order in which it holds them.

        Args:
            tokens: A row for each token of the layout along `dim`.
            layout: Of the whole sequence.
            rank: Whose tokens.
            dim: Dimension of the tokens, not negative.
        """
        own = self.of_grid(tokens.narrow(dim, layout.text, layout.image), rank, dim)
        behind = layout.text + layout.image
        extra = [
            tokens.narrow(dim, behind + part.start, len(part))
            for part in self.own_extra(rank, layout.extra)
            if len(part)
        ]
        text = tokens.narrow(dim, 0, layout.text)
        return torch.cat([text, own, *extra], dim)

    def of_grid(self, tokens: Tensor, rank: int, dim: int = 1) -> Tensor:
        """Select a rank's image tokens out of the grid's, in the order in which it holds them.

        Args:
            tokens: A row for each token of the grid along `dim`.
            rank: Whose tokens.
            dim: Dimension of the tokens, not negative.
        """
        band = self.band(rank)
        grid = tokens.unflatten(dim, (self.height, self.width))
        own = grid.narrow(dim + self.columns, band.start, len(band))
        if self.columns:
            own = own.transpose(dim, dim + 1)
        return own.flatten(dim, dim + 1)

    def put(self, own: Tensor, whole: Tensor, layout: TokenLayout, rank: int) -> Tensor:
        """Write a rank's tokens to their places in a whole sequence, and return it.

        Args:
            own: ``[B, tokens, ...]``, as `of` returns them.
            whole: ``[B, layout.tokens, ...]``, changed.
            layout: Of the whole sequence.
            rank: Whose tokens.
        """
        band, behind = self.band(rank), layout.text + self.image(rank)
        whole[:, : layout.text] = own[:, : layout.text]
        lines = own[:, layout.text : behind].unflatten(1, (-1, self.line))
        grid = whole[:, layout.image_slice].unflatten(1, (self.height, self.width))
        if self.columns:
            grid = grid.transpose(1, 2)
        grid[:, band.start : band.stop] = lines
        for part in self.own_extra(rank, layout.extra):
            at = layout.extra_slice.start + part.start
            whole[:, at : at + len(part)] = own[:, behind : behind + len(part)]
            behind += len(part)
        return whole

    def kept_before(self, token: int, layout: TokenLayout, rank: int) -> int:
        """Count a rank's tokens in front of a token that lies at an end of one of the parts.

        Args:
            token: Position in the whole sequence: of text, in front of the grid, or behind it.
            layout: Of the whole sequence.
            rank: Who counts.

        Raises:
            ValueError: The token lies inside the grid.
        """
        if token <= layout.text:
            return token
        behind = token - layout.text - layout.image
        if behind < 0:
            raise ValueError(f"token must lie outside the grid of {layout}, got {token}.")
        parts = self.own_extra(rank, layout.extra)
        kept = sum(max(0, min(part.stop, behind) - part.start) for part in parts)
        return layout.text + self.image(rank) + kept

    def join(self, bands: Sequence[Tensor], dim: int = 1) -> Tensor:
        """Put the grid together out of the image tokens of all ranks.

        Args:
            bands: In the order of ranks, a row for each of its image tokens along `dim` each.
            dim: Dimension of the tokens, not negative.
        """
        lines = torch.cat(
            [band.unflatten(dim, (-1, self.line)) for band in bands], dim
        )  # [..., lines, tokens of a line, ...]
        if self.columns:
            lines = lines.transpose(dim, dim + 1)
        return lines.flatten(dim, dim + 1)


def share_out(
    height: int,
    width: int,
    shares: Sequence[float],
    *,
    multiple: int = 1,
    extra: range = range(0),
) -> Partition:
    """Share out a grid across its longer side.

    Args:
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        shares: Of each rank, positive, in any unit.
        multiple: Bands begin at multiples of so many lines: a pooled cell lies in one band.
        extra: Extra tokens that are shared out too, counted from the first behind the grid.

    Raises:
        ValueError: A share is not positive, or a rank would have nothing to do.
    """
    if not shares or not all(0 < share < math.inf for share in shares):
        raise ValueError(f"shares must be positive numbers, got {list(shares)}.")
    columns = width > height
    lines = width if columns else height
    units = -(-lines // multiple)
    if units < len(shares):
        raise ValueError(
            f"{height} x {width} tokens must be at least {len(shares) * multiple} lines long, one "
            f"band of {multiple} for each of {len(shares)} ranks. Use fewer devices."
        )
    cuts = [min(lines, cut * multiple) for cut in _cuts(units, shares, least=1)]
    shared = [extra.start + cut for cut in _cuts(len(extra), shares, least=0)] if extra else []
    return Partition(height, width, tuple(cuts), columns, tuple(shared))


def _cuts(units: int, shares: Sequence[float], least: int) -> list[int]:
    """Return where to cut so many units: nearest to the shares, `least` units for each."""
    whole = sum(shares)
    cuts, passed = [0], 0.0
    for index, share in enumerate(shares, 1):
        passed += share
        room = units - least * (len(shares) - index)
        cuts.append(min(room, max(cuts[-1] + least, round(units * passed / whole))))
    return cuts
