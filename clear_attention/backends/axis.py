"""Stretches of a grid's axis that may lead beyond its edges: cut off there, or wrapped around."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """A part of a stretch that lies in the grid in one piece.

    Attributes:
        at: Where it lies in the stretch.
        places: Where it lies on the axis.
    """

    at: slice
    places: slice


def pieces(start: int, stop: int, length: int, wraps: bool) -> Iterator[Piece]:
    """Go through the pieces of a stretch, first to last.

    Args:
        start: First place of the stretch; it may be negative.
        stop: Place behind the last one; it may lie beyond the axis.
        length: Of the axis.
        wraps: Whether what lies beyond an edge is found behind the other one, or nowhere.
    """
    place = start if wraps else max(0, start)
    stop = stop if wraps else min(length, stop)
    while place < stop:
        first = place % length
        count = min(stop - place, length - first)
        yield Piece(slice(place - start, place - start + count), slice(first, first + count))
        place += count
