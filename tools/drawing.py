"""Flat drawings: shapes that are listed once, written as SVG or painted as pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from PIL import Image, ImageDraw, ImageFont

from clear_attention.window import Window

BACKGROUND, UNSEEN, SEEN, LOOKS, MUTED = "#12151c", "#2a3140", "#f2c14e", "#ffffff", "#9aa5b8"
SMOOTHING = 4
"""Pixels are painted so many times finer, and averaged: Pillow draws edges without smoothing."""
GAP = 0.15
"""Share of a token's square that stays free."""


@dataclass(frozen=True)
class Box:
    """A filled rectangle, with rounded corners where ``corner`` is more than 0."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    corner: float = 0


@dataclass(frozen=True)
class Text:
    """A line of text; ``x`` and ``y`` are where its baseline starts."""

    x: float
    y: float
    text: str
    size: float
    colour: str = LOOKS
    bold: bool = False


@dataclass(frozen=True)
class Photo:
    """A picture, scaled into a rectangle."""

    x: float
    y: float
    width: float
    height: float
    image: Image.Image


Shape = Box | Text | Photo


@dataclass(frozen=True)
class Drawing:
    """Shapes on a ground, the later over the earlier."""

    width: int
    height: int
    shapes: tuple[Shape, ...]

    def svg(self) -> str:
        """Write the drawing as SVG; photos cannot be in it."""
        size = f'width="{self.width}" height="{self.height}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            f'viewBox="0 0 {self.width} {self.height}" font-family="sans-serif">'
        ]
        return "\n".join([*lines, *map(_svg, self.shapes), "</svg>", ""])

    def image(self) -> Image.Image:
        """Paint the drawing; what no shape covers is transparent."""
        fine = Image.new("RGBA", (self.width * SMOOTHING, self.height * SMOOTHING))
        for shape in self.shapes:
            _paint(fine, shape)
        return fine.resize((self.width, self.height), Image.Resampling.BOX)


def window(
    x: float,
    y: float,
    edge: float,
    *,
    tokens: int,
    radius: int,
    at: tuple[int, int],
    wrap: bool = False,
) -> Iterator[Box]:
    """Yield a grid of tokens: the one that looks, those that it sees, and the others.

    Args:
        x: Of the grid's left edge.
        y: Of its upper edge.
        edge: Its width and height.
        tokens: In a row and in a column.
        radius: Of the window, in tokens.
        at: Row and column of the token that looks.
        wrap: Whether the window reaches across the edges.
    """
    step = edge / tokens
    rows, columns = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
    down, across = (rows - at[0]).abs(), (columns - at[1]).abs()
    if wrap:
        down, across = down.minimum(tokens - down), across.minimum(tokens - across)
    seen = Window(radius).sees(down, across).tolist()
    for row in range(tokens):
        for column in range(tokens):
            colour = SEEN if seen[row][column] else UNSEEN
            colour = LOOKS if (row, column) == at else colour
            left, top = x + column * step + step * GAP / 2, y + row * step + step * GAP / 2
            side = step * (1 - GAP)
            yield Box(left, top, side, side, colour, side * 0.2)


def text_width(text: str, size: float, *, bold: bool = True) -> float:
    """Return how wide a line of text is painted."""
    return _font(size, bold).getlength(text)


def _svg(shape: Shape) -> str:
    if isinstance(shape, Box):
        place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" height="{shape.height:g}"'
        corner = f' rx="{shape.corner:g}"' if shape.corner else ""
        return f'<rect {place}{corner} fill="{shape.colour}"/>'
    if isinstance(shape, Text):
        place = f'x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size:g}"'
        weight = ' font-weight="bold"' if shape.bold else ""
        return f'<text {place}{weight} fill="{shape.colour}">{escape(shape.text)}</text>'
    raise ValueError("A drawing with photos must be painted, it cannot be written as SVG.")


def _paint(fine: Image.Image, shape: Shape) -> None:
    left, top = shape.x * SMOOTHING, shape.y * SMOOTHING
    if isinstance(shape, Text):
        font = _font(shape.size * SMOOTHING, shape.bold)
        ImageDraw.Draw(fine).text((left, top), shape.text, shape.colour, font, anchor="ls")
    elif isinstance(shape, Photo):
        size = (round(shape.width), round(shape.height))
        photo = shape.image.convert("RGBA").resize(size, Image.Resampling.LANCZOS)
        photo = photo.resize((size[0] * SMOOTHING, size[1] * SMOOTHING), Image.Resampling.NEAREST)
        fine.paste(photo, (round(left), round(top)))
    else:
        right, bottom = left + shape.width * SMOOTHING - 1, top + shape.height * SMOOTHING - 1
        draw, corner = ImageDraw.Draw(fine), shape.corner * SMOOTHING
        draw.rounded_rectangle((left, top, right, bottom), corner, shape.colour)


def _font(size: float, bold: bool) -> ImageFont.FreeTypeFont:
    """Load the face that matplotlib brings: the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
