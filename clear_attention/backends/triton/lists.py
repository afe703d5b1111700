"""Which keys each tile of queries visits: exactly those that one of its tokens sees.

The grid, or a band of its rows, is cut into tiles of a few rows and columns. The window is
symmetric, so that lists likewise tell a tile of keys which queries see it. Tiles at the same
distances to the four borders of what they visit, as far as the window reaches, share one list.
Where the window wraps around, what lies beyond a border is a token behind the opposite one: its
coordinates go on, and its offset leads there.

Whether a pair is visible is one small matrix product away: with the coordinates relative to the
tile's first token, dy*dy + dx*dx = (-2 y_q) y_k + (-2 x_q) x_k + (y_k^2 + x_k^2) + (y_q^2 + x_q^2),
a scalar product. Coordinates and sums of squares are split into multiples of powers of 256, nine
numbers on each side, so that every number is exact in bfloat16 and float16.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...window import Window
from ..lasting import lasting
from .grid import Along, Grid, Run

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


class Tile(NamedTuple):
    """What a tile meets: those that are equal share a list.

    Attributes:
        down: Downwards.
        across: Sideways.
    """

    down: Along
    across: Along


class Visited(NamedTuple):
    """The tokens that a tile visits, ``[tokens]``, int32 each.

    Attributes:
        y: Rows from the tile's first token to them.
        x: Columns, likewise.
        offset: What leads to them in the other side's tensors.
    """

    y: np.ndarray
    x: np.ndarray
    offset: np.ndarray


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
def make_lists(grid: Grid, shape: Shape, dtype: torch.dtype, device: torch.device) -> Lists:
    """List for every tile of a grid what it visits.

    Args:
        grid: The grid.
        shape: Of the tiles.
        dtype: Of the places: that of the queries.
        device: Where the lists shall lie.
    """
    tiles = _tiles(grid, shape)
    reach = _reach(grid.window, grid.height, grid.width)
    first: dict[Tile, int] = {}
    blocks: dict[Tile, int] = {}
    offsets, places = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    entries = 0
    for tile in dict.fromkeys(tiles):
        y, x, offset = _visited(grid, tile)
        count = -(-len(offset) // shape.block)
        # Kernels read where a list starts, also where it is empty.
        first[tile], blocks[tile] = entries if count else 0, count
        if not count:
            continue
        fill = (0, count * shape.block - len(offset))
        nearest = int(offset[np.argmin(np.abs(y) + np.abs(x))])
        offsets.append(np.pad(offset, fill, constant_values=nearest))
        places.append(np.pad(_place_of(y, x, reach, shape), fill, constant_values=NEVER))
        entries += count * shape.block
    integers = (
        [first[tile] for tile in tiles],
        [blocks[tile] for tile in tiles],
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
def table_bytes(grid: Grid, shape: Shape) -> int:
    """Return the size of a grid's lists, without making them."""
    reach = _reach(grid.window, grid.height, grid.width)
    places = (shape.rows + 2 * reach.rows) * (shape.columns + 2 * reach.columns)
    entries = sum(tile.down.met * tile.across.met for tile in set(_tiles(grid, shape)))
    return 2 * PLACE * places + 8 * entries


def visits(grid: Grid, shape: Shape) -> int:
    """Count the pairs that are computed for the grid, visible or not."""
    return sum(
        tiles * shape.tokens * -(-len(_visited(grid, tile).offset) // shape.block) * shape.block
        for tile, tiles in Counter(_tiles(grid, shape)).items()
    )


def _tiles(grid: Grid, shape: Shape) -> list[Tile]:
    """Return what each tile meets, row by row."""
    down = [grid.down(y, shape.rows) for y in grid.own[:: shape.rows]]
    across = [grid.across(x, shape.columns) for x in range(0, grid.width, shape.columns)]
    return [Tile(*axes) for axes in itertools.product(down, across)]


def _visited(grid: Grid, tile: Tile) -> Visited:
    """Return all tokens of the other side that one of a tile's tokens sees."""
    down, across = tile
    found = [np.zeros((3, 0), np.int32)]
    for rows, turn in down.runs:
        for y in rows:
            reach = max(grid.window.half_width(y - row) for row in range(down.tokens))
            start = (y + turn) * grid.width + grid.shift
            seen = range(-reach, across.tokens + reach)
            found += [_in_a_row(y, run, start, seen) for run in across.runs]
    return Visited(*np.concatenate(found, 1))


def _in_a_row(y: int, run: Run, start: int, seen: range) -> np.ndarray:
    """Return y, x and offset of those tokens of a run that are seen, ``[3, tokens]``."""
    first, stop = max(run.steps.start, seen.start), min(run.steps.stop, seen.stop)
    x = np.arange(first, stop, dtype=np.int32)
    return np.stack([np.full_like(x, y), x, x + np.int32(start + run.turn)])


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
