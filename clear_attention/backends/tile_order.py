"""Tile order: the grid in compact blocks of tokens, and which of these blocks meet.

Everything derives from the geometry, in time linear in the tokens.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import TokenLayout
from ..window import Window
from .lasting import lasting

TILE_ROWS, TILE_COLUMNS = 8, 16
BLOCK = TILE_ROWS * TILE_COLUMNS

# Keys with this limit on the squared distance are seen from everywhere.
EVERYWHERE = 2**30

# More rows or columns than a grid can have: it does not come round.
NEVER = 2**30


class BlockLists(NamedTuple):
    """For each block of one side, the blocks of the other side that it meets.

    Torch's kernels walk both tables with the row stride of the first: their shapes must agree.

    Attributes:
        partial_count: ``[1, 1, rows]``, how many of them hold hidden pairs.
        partial: ``[1, 1, rows, width]``, their indices, zero behind the count.
        full_count: ``[1, 1, rows]``, how many hold none.
        full: ``[1, 1, rows, width]``, likewise.
    """

    partial_count: Tensor
    partial: Tensor
    full_count: Tensor
    full: Tensor


class TileOrder(NamedTuple):
    """Who sees whom: queries in tile order, keys in tile order with the shared ones behind.

    A query sees a key whose squared distance is below the key's limit. The limit is that of the
    window for the grid, `EVERYWHERE` for shared keys, and zero for what only fills a block.

    Attributes:
        y: ``[key blocks, BLOCK]``, rows of the keys; those of the queries are among them.
        x: ``[key blocks, BLOCK]``, columns, likewise.
        limit: ``[key blocks, BLOCK]``.
        first: Place of the first query among the keys, without dimensions; None is 0.
        turns: ``[2]``, after how many rows and columns the grid comes round; None if it does not.
        keys: The key blocks of each query block.
        queries: The query blocks of each key block, for the backward pass.
    """

    y: Tensor
    x: Tensor
    limit: Tensor
    first: Tensor | None
    turns: Tensor | None
    keys: BlockLists
    queries: BlockLists | None


@functools.lru_cache(maxsize=8)
def plan_blocks(
    layout: TokenLayout,
    window: Window,
    band: range | None = None,
    *,
    backward: bool,
    device: torch.device,
) -> TileOrder:
    """Derive the plan from the geometry.

    Args:
        layout: The grid, with every shared key as an `extra` token.
        window: The disc.
        band: Rows of the grid whose tokens are queries; None is all.
        backward: Whether to list the query blocks of each key block. Torch wants all rows of that
            table as long as the longest, that of a shared key: 34 MiB for 512 x 512 tokens.
        device: Where the plan shall lie.
    """
    # What is made in inference mode could not take part in a training step later on.
    with lasting(), torch.inference_mode(False), device:
        neighbours = _neighbours(layout, window)
        _, columns = tiles(layout)
        down = query_tiles(layout, band)
        asked = slice(down.start * columns, down.stop * columns)
        return TileOrder(
            *_positions(layout, window),
            first=None if band is None else torch.tensor(asked.start * BLOCK, dtype=torch.int32),
            turns=_turns(layout, window),
            keys=_key_blocks(layout, neighbours, asked),
            queries=_query_blocks(layout, neighbours, asked) if backward else None,
        )


def tiles(layout: TokenLayout) -> tuple[int, int]:
    """Return the rows and columns of tiles. One tile gets a neighbour: torch compiles 1 anew."""
    rows, columns = -(-layout.height // TILE_ROWS), -(-layout.width // TILE_COLUMNS)
    return rows, columns if rows * columns > 1 else 2


def query_tiles(layout: TokenLayout, band: range | None = None) -> range:
    """Return the rows of tiles in which a band of the grid's rows lies, two tiles at least."""
    rows, columns = tiles(layout)
    if band is None:
        return range(rows)
    start, stop = band.start // TILE_ROWS, -(-band.stop // TILE_ROWS)
    if (stop - start) * columns == 1:
        start, stop = (start, stop + 1) if stop < rows else (start - 1, stop)
    return range(start, stop)


def to_tiles(tokens: Tensor, layout: TokenLayout, band: range | None = None) -> Tensor:
    """Reorder ``[B, H, rows*width, D]`` into ``[B, H, blocks*BLOCK, D]``, filled with zeros.

    Args:
        tokens: Of the rows of the band.
        layout: The grid.
        band: Rows of the grid; None is all.
    """
    _, columns = tiles(layout)
    rows, down = range(layout.height) if band is None else band, query_tiles(layout, band)
    above, below = rows.start - down.start * TILE_ROWS, down.stop * TILE_ROWS - rows.stop
    right = columns * TILE_COLUMNS - layout.width
    grid = F.pad(tokens.unflatten(2, (len(rows), layout.width)), (0, 0, 0, right, above, below))
    # [B, H, rows, TILE_ROWS, columns, TILE_COLUMNS, D]
    tiled = grid.unflatten(3, (columns, TILE_COLUMNS)).unflatten(2, (len(down), TILE_ROWS))
    return tiled.transpose(3, 4).flatten(2, 5)


def from_tiles(tiled: Tensor, layout: TokenLayout, band: range | None = None) -> Tensor:
    """Take ``[B, H, blocks*BLOCK, ...]`` back to ``[B, H, rows*width, ...]``."""
    _, columns = tiles(layout)
    rows, down = range(layout.height) if band is None else band, query_tiles(layout, band)
    grid = tiled.unflatten(2, (len(down), columns, TILE_ROWS, TILE_COLUMNS)).transpose(3, 4)
    above = rows.start - down.start * TILE_ROWS
    wanted = grid.flatten(4, 5).flatten(2, 3)[:, :, above : above + len(rows), : layout.width]
    return wanted.flatten(2, 3)


class _Neighbours(NamedTuple):
    """The tiles that each tile may meet, ``[tiles, neighbours]`` each.

    Attributes:
        tile: Which one.
        seen: Whether a token of the one sees a token of the other.
        whole: Whether every token of the one sees every token of the other.
    """

    tile: Tensor
    seen: Tensor
    whole: Tensor


def _neighbours(layout: TokenLayout, window: Window) -> _Neighbours:
    rows, columns = tiles(layout)
    y = _on_axis(rows, TILE_ROWS, layout.height, window.wrap_height, window.reach)
    x = _on_axis(columns, TILE_COLUMNS, layout.width, window.wrap_width, window.reach)
    # [rows, columns, neighbours down, neighbours right]
    y = _Axis(*(part[:, None, :, None] for part in y))
    x = _Axis(*(part[None, :, None, :] for part in x))
    found = _Neighbours(
        y.tile * columns + x.tile,
        window.sees(y.nearest, x.nearest) & y.there & x.there,
        window.sees(y.furthest, x.furthest) & y.there & x.there,
    )
    return _Neighbours(*(part.flatten(2).flatten(0, 1) for part in found))


class _Axis(NamedTuple):
    """The tiles near each tile on one axis, ``[tiles, neighbours]`` each.

    Attributes:
        tile: Which one.
        there: Whether there is one; their number differs at the edges.
        nearest: The smallest distance between their tokens.
        furthest: The largest one, or more at the end of the axis.
    """

    tile: Tensor
    there: Tensor
    nearest: Tensor
    furthest: Tensor


def _on_axis(count: int, edge: int, length: int, wraps: bool, reach: int) -> _Axis:
    tile = torch.arange(count)
    one, other = tile[:, None], tile
    middle = (one - other).abs() * edge
    nearest, furthest = (middle - edge + 1).clamp(min=0), middle + edge - 1
    if wraps:
        end = ((one.maximum(other) + 1) * edge).clamp(max=length)
        furthest = furthest.minimum(length - nearest).clamp(max=length // 2)
        nearest = nearest.minimum(length - (end - 1 - one.minimum(other) * edge))
    near = nearest <= reach
    order = near.byte().argsort(dim=1, descending=True, stable=True)[:, : int(near.sum(1).max())]
    tables = tile.expand(count, -1), near, nearest, furthest
    return _Axis(*(table.gather(1, order) for table in tables))


def _complete(layout: TokenLayout) -> Tensor:
    """Return which tiles lie wholly in the grid, ``[tiles]``."""
    rows, columns = tiles(layout)
    tile = torch.arange(rows * columns)
    y, x = tile // columns + 1, tile % columns + 1
    return (y * TILE_ROWS <= layout.height) & (x * TILE_COLUMNS <= layout.width)


def _shared(layout: TokenLayout) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blocks of shared keys, which hold any key, and which are full; ``[blocks]`` each.

    There is always one, so that no list of blocks is one long: torch compiles a 1 anew.
    """
    rows, columns = tiles(layout)
    block = torch.arange(max(1, -(-layout.extra // BLOCK)))
    return rows * columns + block, block * BLOCK < layout.extra, (block + 1) * BLOCK <= layout.extra


def _positions(layout: TokenLayout, window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, x and limit of the keys."""
    rows, columns = tiles(layout)
    y = torch.arange(rows * TILE_ROWS).repeat_interleave(columns * TILE_COLUMNS)
    x = torch.arange(columns * TILE_COLUMNS).repeat(rows * TILE_ROWS)
    reached = min(window.radius**2, EVERYWHERE)
    limit = torch.where((y < layout.height) & (x < layout.width), reached, 0)
    whole = TokenLayout(0, rows * TILE_ROWS, columns * TILE_COLUMNS)
    y, x, limit = (to_tiles(p[None, None, :, None], whole).flatten() for p in (y, x, limit))
    fill = len(_shared(layout)[0]) * BLOCK
    shared = torch.where(torch.arange(fill) < layout.extra, EVERYWHERE, 0)
    keys = F.pad(y, (0, fill)), F.pad(x, (0, fill)), torch.cat((limit, shared))
    y, x, limit = (p.int().view(-1, BLOCK) for p in keys)
    return y, x, limit


def _turns(layout: TokenLayout, window: Window) -> Tensor | None:
    if not window.wraps:
        return None
    axes = ((layout.height, window.wrap_height), (layout.width, window.wrap_width))
    return torch.tensor([length if wraps else NEVER for length, wraps in axes], dtype=torch.int32)


def _key_blocks(layout: TokenLayout, neighbours: _Neighbours, asked: slice) -> BlockLists:
    tile, seen, whole = (table[asked] for table in neighbours)
    shared, any_key, full = (row.expand(len(tile), -1) for row in _shared(layout))
    return _lists(
        torch.cat((tile, shared), 1),
        seen=torch.cat((seen, any_key), 1),
        full=torch.cat((whole & _complete(layout)[tile], full), 1),
    )


def _query_blocks(layout: TokenLayout, neighbours: _Neighbours, asked: slice) -> BlockLists:
    tile, seen, whole = neighbours
    asks = (tile >= asked.start) & (tile < asked.stop)
    everyone = torch.arange(asked.stop - asked.start).expand(len(_shared(layout)[0]), -1)
    _, any_key, full = (column[:, None].expand_as(everyone) for column in _shared(layout))
    return _lists(
        _stack(tile - asked.start, everyone),
        seen=_stack(seen & asks, any_key),
        full=_stack(whole & asks & _complete(layout)[:, None], full),
    )


def _stack(top: Tensor, bottom: Tensor) -> Tensor:
    """Put one table below the other, filled up with zeros to the wider one's width."""
    width = max(top.shape[1], bottom.shape[1])
    return torch.cat([F.pad(table, (0, width - table.shape[1])) for table in (top, bottom)])


def _lists(candidates: Tensor, *, seen: Tensor, full: Tensor) -> BlockLists:
    return BlockLists(*_list(candidates, seen & ~full), *_list(candidates, full))


def _list(candidates: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Move the chosen ones of each row to its front; return their number and the rows."""
    order = chosen.byte().argsort(dim=1, descending=True, stable=True)
    rows = torch.where(chosen, candidates, 0).gather(1, order)
    return chosen.sum(1).int()[None, None], rows.int()[None, None]
