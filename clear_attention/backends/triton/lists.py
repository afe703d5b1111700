"""Which keys each tile of queries visits: exactly those that one of its tokens sees.

The grid is cut into tiles of a few rows and columns. The window is symmetric, so that the same
lists tell a tile of keys which queries see it. Tiles at the same distances to the four borders,
as far as the window reaches, share one list. Where the window wraps around, what lies beyond a
border is a token behind the opposite one: its coordinates go on, and its offset leads there.

Whether a pair is visible is one small matrix product away: with the coordinates relative to the
tile's first token, dy*dy + dx*dx = (-2 y_q) y_k + (-2 x_q) x_k + (y_k^2 + x_k^2) + (y_q^2 + x_q^2),
a scalar product. Coordinates and sums of squares are split into multiples of powers of 256, nine
numbers on each side, so that every number is exact in bfloat16 and float16.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...window import Window
from ..lasting import lasting

ALIGNED = 8  # numbers that are read at once: strides are multiples of it
PLACE = 16  # numbers per place, of which nine count: the smallest that tensor cores take
SPLIT = 256
NEVER = 0  # place of what only fills a block
FAR = 255 * SPLIT  # times SPLIT a squared distance beyond any window
LARGEST_RADIUS = 4000  # up to here all numbers of a place and their sums are exact
LARGEST_TABLE = 256 * 2**20  # bytes


class Shape(NamedTuple):
    """Of a tile and of the blocks in which it visits the other side.

    Attributes:
        rows: Of a tile.
        columns: Of a tile.
        block: Tokens per block of the other side.
    """

    rows: int
    columns: int
    block: int

    @property
    def tokens(self) -> int:
        """Tokens per tile."""
        return self.rows * self.columns


class Lists(NamedTuple):
    """What each tile visits.

    Attributes:
        first: ``[tiles]``, int32, where a tile's list starts.
        blocks: ``[tiles]``, int32, blocks in its list.
        offsets: ``[entries]``, int32, from the tile's first token to the visited one.
        places: ``[entries]``, int32, row of the visited token in `others`.
        others: ``[places, PLACE]``, the visited tokens' side of the scalar product.
        own: ``[tile's tokens, PLACE]``, the tile's side.
    """

    first: Tensor
    blocks: Tensor
    offsets: Tensor
    places: Tensor
    others: Tensor
    own: Tensor


class Border(NamedTuple):
    """How much of the grid a tile has around it, as far as its windows reach.

    Attributes:
        above: Rows above the tile.
        below: Rows from the tile's first one on.
        left: Columns to the left of the tile.
        right: Columns from the tile's first one on.
    """

    above: int
    below: int
    left: int
    right: int


class Reach(NamedTuple):
    """How far from its own place a token can meet another one.

    Attributes:
        rows: At most.
        columns: At most.
    """

    rows: int
    columns: int


def within(window: Window, height: int, width: int) -> Window:
    """Return the window with the smallest radius, up to the grid's diagonal, that sees the same."""
    diagonal = math.isqrt((height - 1) ** 2 + (width - 1) ** 2) + 1
    return window if window.radius <= diagonal else replace(window, radius=diagonal)


@functools.lru_cache(maxsize=16)
def make_lists(
    window: Window, height: int, width: int, shape: Shape, dtype: torch.dtype, device: torch.device
) -> Lists:
    """List for every tile of a grid what it visits.

    Args:
        window: The disc.
        height: Rows of the grid, in tokens.
        width: Columns of the grid, in tokens.
        shape: Of the tiles.
        dtype: Of the places: that of the queries.
        device: Where the lists shall lie.
    """
    borders = [_border(window, height, width, shape, y, x) for y, x in _tiles(height, width, shape)]
    reach = _reach(window, height, width)
    first: dict[Border, int] = {}
    blocks: dict[Border, int] = {}
    offsets, places = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    entries = 0
    for border in dict.fromkeys(borders):
        y, x = _visited(window, border, shape)
        count = -(-len(y) // shape.block)
        first[border], blocks[border] = entries, count
        fill = (0, count * shape.block - len(y))
        at_y = _around(y, -border.above, border.below, height)
        at_x = _around(x, -border.left, border.right, width)
        offsets.append(np.pad(at_y * width + at_x, fill))
        places.append(np.pad(_place_of(y, x, reach, shape), fill, constant_values=NEVER))
        entries += count * shape.block
    integers = (
        [first[border] for border in borders],
        [blocks[border] for border in borders],
        np.concatenate(offsets),
        np.concatenate(places),
    )
    with lasting(), torch.inference_mode(False):
        return Lists(
            *(torch.as_tensor(np.asarray(part, np.int32)).to(device) for part in integers),
            others=torch.from_numpy(_others(reach, shape)).to(device, dtype),
            own=torch.from_numpy(_own(shape)).to(device, dtype),
        )


def why_not(window: Window, height: int, width: int) -> str | None:
    """Say why the lists cannot tell who sees whom, or None.

    A product of places knows no shorter way round: a token must not meet another one both ways.
    """
    for wraps, length, name in (
        (window.wrap_height, height, "rows"),
        (window.wrap_width, width, "columns"),
    ):
        if wraps and length < 2 * window.reach + 1:
            return f"a window of radius {window.radius} meets itself around {length} {name}"
    return None


@functools.lru_cache(maxsize=256)
def table_bytes(window: Window, height: int, width: int, shape: Shape) -> int:
    """Return the size of a grid's lists, without making them."""
    borders = {_border(window, height, width, shape, y, x) for y, x in _tiles(height, width, shape)}
    rows, columns = shape.rows + 2 * window.reach, shape.columns + 2 * window.reach
    reach = _reach(window, height, width)
    places = (shape.rows + 2 * reach.rows) * (shape.columns + 2 * reach.columns)
    return 2 * PLACE * places + sum(
        8
        * (rows if window.wrap_height else min(rows, b.above + b.below))
        * (columns if window.wrap_width else min(columns, b.left + b.right))
        for b in borders
    )


def visits(window: Window, height: int, width: int, shape: Shape) -> int:
    """Count the pairs that are computed for the grid, visible or not."""
    counts: dict[Border, int] = {}
    for y, x in _tiles(height, width, shape):
        border = _border(window, height, width, shape, y, x)
        counts[border] = counts.get(border, 0) + 1
    return sum(
        tiles
        * shape.tokens
        * -(-len(_visited(window, border, shape)[0]) // shape.block)
        * shape.block
        for border, tiles in counts.items()
    )


def _tiles(height: int, width: int, shape: Shape) -> Iterator[tuple[int, int]]:
    """Go through the first tokens of the tiles, row by row."""
    for y in range(0, height, shape.rows):
        for x in range(0, width, shape.columns):
            yield y, x


def _border(window: Window, height: int, width: int, shape: Shape, y: int, x: int) -> Border:
    reach = window.reach
    return Border(
        above=min(y, reach),
        below=min(height - y, shape.rows + reach),
        left=min(x, reach),
        right=min(width - x, shape.columns + reach),
    )


def _visited(window: Window, border: Border, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns, relative to the tile's first token, of all that it visits."""
    rows = min(shape.rows, border.below)
    columns = min(shape.columns, border.right)
    above, below, left, right = border
    if window.wrap_height:
        above, below = window.reach, rows + window.reach
    if window.wrap_width:
        left, right = window.reach, columns + window.reach
    ys, xs = [], []
    for y in range(-above, below):
        reach = max(window.half_width(y - row) for row in range(rows))
        if reach >= 0:
            start, stop = max(-left, -reach), min(right, columns + reach)
            xs.append(np.arange(start, stop, dtype=np.int32))
            ys.append(np.full(stop - start, y, np.int32))
    return np.concatenate(ys), np.concatenate(xs)


def _around(d: np.ndarray, start: int, stop: int, length: int) -> np.ndarray:
    """Bring what lies before the start or from the stop on back into the grid."""
    return d + length * ((d < start).astype(np.int32) - (d >= stop).astype(np.int32))


def _reach(window: Window, height: int, width: int) -> Reach:
    return Reach(min(window.reach, height - 1), min(window.reach, width - 1))


def _place_of(y: np.ndarray, x: np.ndarray, reach: Reach, shape: Shape) -> np.ndarray:
    columns = shape.columns + 2 * reach.columns
    return 1 + (y + reach.rows) * columns + x + reach.columns


def _others(reach: Reach, shape: Shape) -> np.ndarray:
    """Return all places that tokens around a tile can have, behind `NEVER`."""
    y = np.arange(-reach.rows, shape.rows + reach.rows, dtype=np.int64)[:, None]
    x = np.arange(-reach.columns, shape.columns + reach.columns, dtype=np.int64)[None, :]
    y, x = (part.ravel() for part in np.broadcast_arrays(y, x))
    rest, low = _split(y * y + x * x)
    high = rest // SPLIT // SPLIT * SPLIT  # times SPLIT, which is the tile's side of it
    one = np.ones_like(y)
    never = np.zeros((1, PLACE))
    never[NEVER, 0] = FAR
    squares = high, rest - high * SPLIT, low
    return np.concatenate([never, _pad(*squares, *_split(y), *_split(x), one, one)]).astype(
        np.float32
    )


def _own(shape: Shape) -> np.ndarray:
    y, x = (part.ravel() for part in np.mgrid[: shape.rows, : shape.columns])
    one = np.ones_like(y)
    places = _pad(SPLIT * one, one, one, *[-2 * y] * 2, *[-2 * x] * 2, *_split(y * y + x * x))
    return places.astype(np.float32)


def _split(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = numbers % SPLIT
    return numbers - low, low


def _pad(*numbers: np.ndarray) -> np.ndarray:
    return np.pad(np.stack(numbers, 1), ((0, 0), (0, PLACE - len(numbers))))
