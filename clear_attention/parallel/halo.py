"""The lines of other ranks that a rank's windows reach, and the grid that its keys make up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..layout import TokenLayout
from ..pooling import Pooling
from ..window import Window
from .partition import Partition


@dataclass(frozen=True)
class Halo:
    """The lines of keys that a rank needs, in the order of the grid that it attends to.

    Attributes:
        pieces: Owner and its lines, those of the rank among them; each line once.
        first: The first line of the rank's own in that grid.
        window: Of the rank's calls: wrapped along the cut only where all lines are there.
    """

    pieces: tuple[tuple[int, range], ...]
    first: int
    window: Window

    @property
    def lines(self) -> int:
        """Lines of the grid of keys."""
        return sum(len(lines) for _, lines in self.pieces)


def turned(
    layout: TokenLayout, window: Window | None, pooling: Pooling | None
) -> tuple[TokenLayout, Window | None, Pooling | None]:
    """Exchange rows and columns: the disc is symmetric, what it meets at the edges is not."""
    layout = replace(layout, height=layout.width, width=layout.height)
    if window is not None:
        window = replace(window, wrap_height=window.wrap_width, wrap_width=window.wrap_height)
    if pooling is not None and pooling.weight is not None:
        pooling = Pooling(pooling.factor, pooling.weight.T)
    return layout, window, pooling


def halo_of(partition: Partition, rank: int, window: Window | None) -> Halo:
    """Return the lines of keys that a rank needs.

    Args:
        partition: Of the grid.
        rank: Who needs them.
        window: In the direction of the cut: `turned` for columns. None sees all.
    """
    band, lines = partition.band(rank), partition.lines
    if window is None:
        everything = Window(lines + partition.line)
        return Halo(_owned(partition, 0, lines), band.start, everything)
    start, stop = band.start - window.reach, band.stop + window.reach
    if not window.wrap_height:
        start, stop = max(0, start), min(lines, stop)
        return Halo(_owned(partition, start, stop), band.start - start, window)
    if stop - start >= lines:
        return Halo(_owned(partition, 0, lines), band.start, window)
    pieces = (
        *(_owned(partition, start + lines, lines) if start < 0 else ()),
        *_owned(partition, max(0, start), min(lines, stop)),
        *(_owned(partition, 0, stop - lines) if stop > lines else ()),
    )
    return Halo(pieces, window.reach, replace(window, wrap_height=False))


def _owned(partition: Partition, start: int, stop: int) -> tuple[tuple[int, range], ...]:
    """Return the owners of adjacent lines."""
    bands = ((rank, partition.band(rank)) for rank in range(partition.size))
    return tuple(
        (rank, range(max(start, band.start), min(stop, band.stop)))
        for rank, band in bands
        if max(start, band.start) < min(stop, band.stop)
    )
