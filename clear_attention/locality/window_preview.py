"""The window drawn over a picture at true scale: disc, halo of its tile, pooled grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pooling import Pooling
from ..window import Window

# Brightness of what the token sees, what its tile loads for it, and the rest.
SEEN, LOADED, HIDDEN = 1.0, 0.6, 0.3
DISC, TILE, HALO, POOLED = (1.0, 0.85, 0.1), (0.2, 0.9, 1.0), (0.2, 0.55, 1.0), (1.0, 1.0, 1.0)
POOLED_OPACITY = 0.35
LINES = 400  # as many lines lie beside each other along the shorter edge


@dataclass(frozen=True)
class Preview:
    """A token of a picture, and what belongs to its window.

    Attributes:
        height_px: Of the picture.
        width_px: Of the picture.
        window: The disc.
        at: Row and column of the token that looks.
        tile: Rows and columns of the queries that are computed together.
        pool_factor: Edge of a pooled cell in tokens, 0 without pooling.
        token_px: Edge of a token in pixels.
    """

    height_px: int
    width_px: int
    window: Window
    at: tuple[int, int]
    tile: tuple[int, int]
    pool_factor: int
    token_px: int

    @property
    def rows(self) -> int:
        """Rows of the grid; the last one may stick out of the picture."""
        return -(-self.height_px // self.token_px)

    @property
    def columns(self) -> int:
        """Columns of the grid."""
        return -(-self.width_px // self.token_px)

    def disc(self) -> Tensor:
        """Return ``[rows, columns]``: which tokens the token sees."""
        row, column = self.at
        dy = torch.arange(self.rows)[:, None] - row
        dx = torch.arange(self.columns) - column
        return self.window.sees_in(self.rows, self.columns, dy, dx)

    def tile_box(self) -> tuple[slice, slice]:
        """Return the rows and columns of the tile in which the token lies."""
        (row, column), (height, width) = self.at, self.tile
        top, left = row // height * height, column // width * width
        return (
            slice(top, min(self.rows, top + height)),
            slice(left, min(self.columns, left + width)),
        )

    def halo(self) -> tuple[Tensor, Tensor]:
        """Return which rows and which columns of keys the tile's windows reach, ``[length]``."""
        rows, columns = self.tile_box()
        window = self.window
        return (
            _reached(rows, self.rows, window.reach, window.wrap_height),
            _reached(columns, self.columns, window.reach, window.wrap_width),
        )

    def describe(self) -> str:
        """Return the numbers of the drawing as text."""
        tokens, seen = self.rows * self.columns, int(self.disc().sum())
        halo = [int(reached.sum()) for reached in self.halo()]
        diameter = 2 * self.window.reach + 1
        whole = seen == self.window.tokens or self.window.wraps
        cut = "" if whole else ", cut at the border"
        lines = [
            f"{self.width_px} x {self.height_px} pixels are {self.columns} x {self.rows} tokens of "
            f"{self.token_px} pixels.",
            f"The token in row {self.at[0]}, column {self.at[1]} sees {seen:,} of {tokens:,} "
            f"({seen / tokens:.1%}): a disc {diameter} tokens or {diameter * self.token_px} pixels "
            f"across{cut}.",
            f"It is computed in a tile of {self.tile[1]} x {self.tile[0]} tokens, which loads "
            f"{halo[1]} x {halo[0]} of them.",
        ]
        if self.pool_factor > 1:
            cells = Pooling(self.pool_factor).cells(self.rows, self.columns)
            lines.append(
                f"It also sees all {cells:,} pooled cells of {self.pool_factor} x "
                f"{self.pool_factor} tokens."
            )
        return "\n".join(lines)


def draw(preview: Preview, picture: Tensor) -> Tensor:
    """Draw a window over a picture.

    Args:
        preview: What to draw.
        picture: ``[B, height_px, width_px, 3]``, 0 to 1.

    Returns:
        ``[B, height_px, width_px, 3]``, float32 from 0 to 1.
    """
    disc = preview.disc()
    tile = _box(preview, preview.tile_box())
    halo_rows, halo_columns = preview.halo()
    halo = halo_rows[:, None] & halo_columns
    token = torch.zeros_like(disc)
    token[preview.at] = True
    brightness = torch.where(disc, SEEN, torch.where(halo, LOADED, HIDDEN))
    out = picture.float() * _pixels(preview, brightness)[..., None]
    if preview.pool_factor > 1:
        _paint(out, _cell_lines(preview), POOLED, POOLED_OPACITY)
    for mask, color in ((halo, HALO), (tile, TILE), (disc, DISC)):
        _paint(out, _rim(preview, mask), color)
    _paint(out, _pixels(preview, token), DISC, 0.8)
    return out


def blank(height_px: int, width_px: int, token_px: int) -> Tensor:
    """Return a picture to draw on where there is none: tokens as a grey chequerboard."""
    y, x = (torch.arange(edge) // token_px for edge in (height_px, width_px))
    grey = 0.62 + 0.08 * ((y[:, None] + x) % 2)
    return grey[None, :, :, None].expand(1, -1, -1, 3)


def token_at(share: float, edge_px: int, token_px: int) -> int:
    """Return the row or column in which the pixel lies that is a share, 0 to 1, along an edge."""
    return min(edge_px - 1, int(share * edge_px)) // token_px


def _pixels(preview: Preview, tokens: Tensor) -> Tensor:
    """Enlarge a value per token to ``[height_px, width_px]``."""
    y = torch.arange(preview.height_px) // preview.token_px
    x = torch.arange(preview.width_px) // preview.token_px
    return tokens[y[:, None], x]


def _reached(tile: slice, length: int, reach: int, wraps: bool) -> Tensor:
    places = torch.arange(tile.start - reach, tile.stop + reach)
    places = places % length if wraps else places[(places >= 0) & (places < length)]
    reached = torch.zeros(length, dtype=torch.bool)
    reached[places] = True
    return reached


def _box(preview: Preview, box: tuple[slice, slice]) -> Tensor:
    mask = torch.zeros(preview.rows, preview.columns, dtype=torch.bool)
    mask[box] = True
    return mask


def _line_px(preview: Preview) -> int:
    thin = min(preview.height_px, preview.width_px) // LINES
    return min(max(1, thin), preview.token_px // 2)


def _rim(preview: Preview, inside: Tensor) -> Tensor:
    """Return the rim of an area of tokens, ``[height_px, width_px]``; the border is none."""
    line, token_px = _line_px(preview), preview.token_px
    rim = torch.zeros(preview.height_px, preview.width_px, dtype=torch.bool)
    for axis, edge_px in ((0, preview.height_px), (1, preview.width_px)):
        place = torch.arange(edge_px) % token_px
        for step, near in ((1, place < line), (-1, place >= token_px - line)):
            wraps = preview.window.wrap_height if axis == 0 else preview.window.wrap_width
            rim |= _pixels(preview, inside & ~_neighbour(inside, step, axis, wraps)) & (
                near[:, None] if axis == 0 else near
            )
    return rim


def _neighbour(inside: Tensor, step: int, axis: int, wraps: bool) -> Tensor:
    """Return whether the token `step` before is inside, True where there is none."""
    moved = inside.roll(step, axis)
    if not wraps:
        moved.select(axis, 0 if step > 0 else -1).fill_(True)
    return moved


def _cell_lines(preview: Preview) -> Tensor:
    """Return where the pooled cells meet."""
    cell = preview.pool_factor * preview.token_px
    y, x = (torch.arange(edge) for edge in (preview.height_px, preview.width_px))
    line = _line_px(preview)
    at_y, at_x = ((each >= cell) & (each % cell < line) for each in (y, x))
    return at_y[:, None] | at_x


def _paint(
    picture: Tensor, where: Tensor, color: tuple[float, float, float], opacity: float = 1.0
) -> None:
    """Paint some pixels of ``[B, height_px, width_px, 3]`` in place."""
    paint = opacity * picture.new_tensor(color)
    picture[:, where] = picture[:, where] * (1 - opacity) + paint
