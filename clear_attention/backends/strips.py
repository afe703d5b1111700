"""Columns of query tiles, and the windows of keys that each tile sees, as overlapping views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import TokenLayout
from ..partial import aligned_zeros
from ..window import Window
from .axis import Piece, pieces


@dataclass(frozen=True)
class Strip:
    """A column of tiles and the keys that their windows reach.

    Attributes:
        layout: The whole sequence.
        window: The disc.
        tile: Rows of one tile, in tokens.
        left: First column of the queries.
        right: Column behind the last one.
        band: Their rows.
    """

    layout: TokenLayout
    window: Window
    tile: int
    left: int
    right: int
    band: range

    @property
    def tiles(self) -> int:
        return -(-len(self.band) // self.tile)

    @property
    def halo_rows(self) -> int:
        """How far the windows of a tile reach above and below it; never beyond the whole grid."""
        height = self.layout.height
        return min(self.window.reach, height // 2 if self.window.wrap_height else height - 1)

    @property
    def key_columns(self) -> slice:
        """The columns that the windows reach; beyond the edges where these wrap around."""
        reach, width = self.window.reach, self.layout.width
        if self.window.wrap_width:
            reach = min(reach, width // 2)
            return slice(self.left - reach, self.right + reach)
        return slice(max(0, self.left - reach), min(width, self.right + reach))

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the mask depends on; inner strips have it in common."""
        keys = self.key_columns
        return self.right - self.left, self.left - keys.start, keys.stop - keys.start

    def queries(self, tokens: Tensor) -> Tensor:
        """Copy ``[B, H, rows*width, ...]`` in tile order, ``[tiles, B*H, tile*columns, ...]``."""
        grid = tokens.unflatten(2, (len(self.band), self.layout.width))
        strip = grid[:, :, :, self.left : self.right]
        padded = tokens.new_zeros(*tokens.shape[:2], self.tiles * self.tile, *strip.shape[3:])
        padded[:, :, : len(self.band)] = strip
        columns = self.right - self.left
        tiled = padded.view(-1, self.tiles, self.tile * columns, *tokens.shape[3:])
        return tiled.transpose(0, 1)

    def write_queries(self, tokens: Tensor, tiled: Tensor) -> None:
        """Write ``[tiles, B*H, tile*columns, ...]`` back into ``[B, H, rows*width, ...]``."""
        grid = tokens.unflatten(2, (len(self.band), self.layout.width))
        columns = self.right - self.left
        rows = tiled.transpose(0, 1).reshape(
            *grid.shape[:2], self.tiles * self.tile, columns, *grid.shape[4:]
        )
        grid[:, :, :, self.left : self.right] = rows[:, :, : len(self.band)]

    def windows(self, tokens: Tensor) -> Tensor:
        """Copy the strip and its halo, and return each tile's window as a view into it.

        ``[tiles, B*H, (tile + 2*halo_rows)*key_columns, D]``; rows outside the grid are zero.
        """
        keys, reach = self.key_columns, self.halo_rows
        columns, depth = keys.stop - keys.start, tokens.shape[3]
        grid = tokens.unflatten(2, (self.layout.height, self.layout.width))
        rows = self.tiles * self.tile + 2 * reach
        halo = tokens.new_zeros(*tokens.shape[:2], rows, columns, depth)
        first = self.band.start - reach
        for row in self._rows(first, first + rows):
            for column in self._columns():
                halo[:, :, row.at, column.at] = grid[:, :, row.places, column.places]
        return halo.as_strided(
            (self.tiles, tokens.shape[0] * tokens.shape[1], self._window_tokens, depth),
            (self.tile * columns * depth, rows * columns * depth, depth, 1),
        )

    def add_windows(self, tokens: Tensor, windows: Tensor) -> None:
        """Add ``[tiles, B*H, window tokens, D]`` back into ``[B, H, height*width, D]``."""
        grid = tokens.unflatten(2, (self.layout.height, self.layout.width))
        keys, reach = self.key_columns, self.halo_rows
        rows = self.tile + 2 * reach
        parts = windows.unflatten(2, (rows, keys.stop - keys.start)).unflatten(1, grid.shape[:2])
        for index, part in enumerate(parts):
            first = self.band.start + index * self.tile - reach
            for row in self._rows(first, first + rows):
                for column in self._columns():
                    grid[:, :, row.places, column.places] += part[:, :, row.at, column.at]

    def bias(self, like: Tensor) -> Tensor:
        """Return the mask of every tile, ``[tiles, 1, tile*columns, window tokens]``."""
        reach, keys, device = self.halo_rows, self.key_columns, like.device
        query_y = torch.arange(self.tile, device=device)
        key_y = torch.arange(-reach, self.tile + reach, device=device)
        query_x = torch.arange(self.left, self.right, device=device)
        key_x = torch.arange(keys.start, keys.stop, device=device)
        sees = self.window.sees_across(
            self.layout.height,
            self.layout.width,
            (key_y - query_y[:, None])[:, None, :, None],
            (key_x - query_x[:, None])[:, None],
        ).flatten(2)
        first_row = torch.arange(self.tiles, device=device) * self.tile + self.band.start
        row = first_row[:, None] + key_y
        inside = (row >= 0) & (row < self.layout.height) | self.window.wrap_height
        inside = inside.repeat_interleave(len(key_x), 1)
        hidden = ~(sees.flatten(0, 1)[None, None] & inside[:, None, None])
        return aligned_zeros(hidden.shape, like).masked_fill_(hidden, -torch.inf)

    def _rows(self, start: int, stop: int) -> Iterator[Piece]:
        return pieces(start, stop, self.layout.height, self.window.wrap_height)

    def _columns(self) -> Iterator[Piece]:
        keys = self.key_columns
        return pieces(keys.start, keys.stop, self.layout.width, self.window.wrap_width)

    @property
    def _window_tokens(self) -> int:
        keys = self.key_columns
        return (self.tile + 2 * self.halo_rows) * (keys.stop - keys.start)


def strips(
    layout: TokenLayout, window: Window, band: range, like: Tensor
) -> Iterator[tuple[Strip, Tensor]]:
    """Cut a band of the grid into strips, left to right, with their biases; inner ones share one.

    Args:
        layout: The whole sequence.
        window: The disc.
        band: Rows of the queries; there may be none.
        like: Gives the dtype and the device of the bias.
    """
    rows, columns = tile_size(window, like.device)
    shape, bias = None, like
    for left in range(0, layout.width if band else 0, columns):
        strip = Strip(layout, window, rows, left, min(layout.width, left + columns), band)
        if strip.shape != shape:
            shape, bias = strip.shape, strip.bias(like)
        yield strip, bias


def tile_size(window: Window, device: torch.device) -> tuple[int, int]:
    """Return the rows and columns of a tile: small ones compute less, large ones fill a GPU."""
    if device.type == "cpu":
        return (4, 8)
    return (8, 8) if window.radius <= 8 else (16, 16)
