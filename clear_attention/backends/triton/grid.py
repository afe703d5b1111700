"""A grid of tokens with a window, and what its tiles meet along each axis.

One side of attention, the own one, is cut into tiles, and these visit the other side. Either may be
a band of the grid's rows: its tensors then hold these rows alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ...window import Window


class Run(NamedTuple):
    """Tokens next to each other on an axis.

    Attributes:
        steps: From a tile's first token to them; behind the border of a wrapped axis they go on.
        turn: What leads from there back into the grid: its length, forwards or backwards, or 0.
    """

    steps: range
    turn: int


class Along(NamedTuple):
    """What a tile meets along an axis. Tiles that meet the same along both axes share a list.

    Attributes:
        tokens: Of the tile.
        runs: What its windows reach of the other side, in the order of their steps.
    """

    tokens: int
    runs: tuple[Run, ...]

    @property
    def met(self) -> int:
        """How many tokens of the other side the windows reach."""
        return sum(len(run.steps) for run in self.runs)


class Grid(NamedTuple):
    """A grid of tokens with a window.

    Attributes:
        height: Rows, in tokens.
        width: Columns, in tokens.
        window: Who sees whom.
        own: Rows that are cut into tiles.
        others: Rows that the tiles visit.
    """

    height: int
    width: int
    window: Window
    own: range
    others: range

    @property
    def exchanged(self) -> Grid:
        """The grid with exchanged sides: the window is symmetric."""
        return self._replace(own=self.others, others=self.own)

    @property
    def shift(self) -> int:
        """How much further on a token lies in the other side's tensors than in those of its own."""
        return (self.own.start - self.others.start) * self.width

    def down(self, y: int, rows: int) -> Along:
        """Return what a tile of so many rows, the first of which is y, meets downwards."""
        return self._along(y, rows, self.own, self.others, self.height, self.window.wrap_height)

    def across(self, x: int, columns: int) -> Along:
        """Return what a tile of so many columns, the first of which is x, meets sideways."""
        every = range(self.width)
        return self._along(x, columns, every, every, self.width, self.window.wrap_width)

    def _along(
        self, first: int, size: int, own: range, others: range, length: int, wraps: bool
    ) -> Along:
        tokens, reach = min(size, own.stop - first), self.window.reach
        runs: list[Run] = []
        for turn in (length, 0, -length) if wraps else (0,):
            start = max(-reach, others.start - turn - first)
            stop = min(tokens + reach, others.stop - turn - first)
            if start < stop:
                runs.append(Run(range(start, stop), turn))
        return Along(tokens, tuple(runs))


def whole_grid(height: int, width: int, window: Window) -> Grid:
    """Return a grid all of whose rows are on both sides."""
    return Grid(height, width, window, range(height), range(height))
