"""Draw what each way made of a picture, whole or a part of it, with figures below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from tools.drawing import BACKGROUND, LOOKS, MUTED, SEEN, UNSEEN, Box, Drawing, Photo, Shape, Text

CELL_PX, GAP_PX = 388, 8
HEAD_PX, FOOT_PX, BAR_PX = 44, 92, 10


@dataclass(frozen=True)
class Cell:
    """One way's picture, with its figures.

    Attributes:
        name: Of the way.
        picture: Square.
        seams: See `measures.seams`.
        repeats: See `measures.repeats`.
        seconds: Of its sampling steps.
    """

    name: str
    picture: Image.Image
    seams: float
    repeats: float
    seconds: float

    @property
    def figures(self) -> str:
        """The line below the picture."""
        return f"seams {self.seams:.1f}   repeats {max(0.0, self.repeats):.2f}"


@dataclass(frozen=True)
class Row:
    """One picture of each way.

    Attributes:
        title: Stands above.
        cells: Of the ways.
        part: Left and upper edge of what is shown at true size; None shows all of it.
    """

    title: str
    cells: Sequence[Cell]
    part: tuple[int, int] | None = None


def drawing(rows: Sequence[Row], note: str) -> Drawing:
    """Lay rows out.

    Args:
        rows: Of as many cells each.
        note: The last line: of what model, on what machine.
    """
    columns = len(rows[0].cells)
    width = columns * CELL_PX + (columns + 1) * GAP_PX
    height_of_row = HEAD_PX + CELL_PX + FOOT_PX
    shapes: list[Shape] = []
    for number, row in enumerate(rows):
        top = number * height_of_row
        shapes.append(Text(GAP_PX + 2, top + 30, row.title, 22, LOOKS, bold=True))
        slowest = max(cell.seconds for cell in row.cells)
        for at, cell in enumerate(row.cells):
            left = GAP_PX + at * (CELL_PX + GAP_PX)
            shapes += _cell(cell, left, top + HEAD_PX, row.part, slowest)
    height = len(rows) * height_of_row + 34
    shapes.append(Text(GAP_PX + 2, height - 14, note, 15, MUTED))
    return Drawing(width, height, (Box(0, 0, width, height, BACKGROUND), *shapes))


def _cell(
    cell: Cell, left: float, top: float, part: tuple[int, int] | None, slowest: float
) -> Iterator[Shape]:
    shown = cell.picture
    if part is not None:
        shown = shown.crop((*part, part[0] + CELL_PX, part[1] + CELL_PX))
    yield Photo(left, top, CELL_PX, CELL_PX, shown)
    below, ours = top + CELL_PX, cell.name.startswith("CLEAR")
    yield Box(left, below + 8, CELL_PX, BAR_PX, UNSEEN, 4)
    share = max(0.02, cell.seconds / slowest)
    yield Box(left, below + 8, CELL_PX * share, BAR_PX, SEEN if ours else MUTED, 4)
    words = f"{cell.name}, {cell.seconds:.3g} s"
    yield Text(left, below + 44, words, 20, SEEN if ours else LOOKS, bold=True)
    yield Text(left, below + 68, cell.figures, 17, MUTED)
