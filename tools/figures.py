"""What a node does to a picture, drawn into a square: for help pages and thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tools.drawing import BACKGROUND, GAP, LOOKS, MUTED, SEEN, UNSEEN, Box, Shape, Text, window

OTHERS = (SEEN, "#5aa9e6", "#7bc47f", "#e07a5f")
"""Colours of GPUs that share a picture, and of stages."""

Figure = Callable[[float, float, float], Iterator[Shape]]
"""Draws into the square with this left edge, upper edge and width."""


def disc(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a token and the disc that it sees."""
    yield from window(x, y, edge, tokens=13, radius=5, at=(6, 6))


def wrapped_disc(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a disc that reaches across two edges."""
    yield from window(x, y, edge, tokens=13, radius=5, at=(1, 1), wrap=True)


def copies(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw four copies of a picture, side by side."""
    half = edge / 2
    for right, down in ((0, 0), (half, 0), (0, half), (half, half)):
        yield from window(x + right, y + down, half, tokens=8, radius=3, at=(0, 0), wrap=True)


def two_discs(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw the disc of a ControlNet beside that of its model."""
    half = edge / 2 - 5
    yield from window(x, y, half, tokens=7, radius=3, at=(3, 3))
    yield from window(x + half + 10, y + half + 10, half, tokens=7, radius=3, at=(3, 3))
    yield Text(x + half + 16, y + half / 2 + 8, "the net", 22, MUTED)
    yield Text(x + 6, y + half * 1.5 + 18, "the model", 22, MUTED)


def reference(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a token that sees a disc of the result and all of the picture that is edited."""
    half = edge / 2 - 5
    yield from bands(x, y + half / 2, half, colours=(SEEN,), tokens=7)
    yield from window(x + half + 10, y + half / 2, half, tokens=9, radius=3, at=(4, 4))
    yield Text(x, y + half / 2 - 12, "your picture", 20, MUTED)
    yield Text(x + half + 10, y + half / 2 - 12, "the result", 20, MUTED)


def larger(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a picture of the trained size in a larger one."""
    yield from bands(x, y, edge, colours=(UNSEEN,), tokens=12)
    yield from bands(x, y, edge / 3, colours=(SEEN,), tokens=4)


def stages(x: float, y: float, edge: float, first: str = "1K 2K 4K") -> Iterator[Shape]:
    """Draw pictures, each twice as wide as the one before, as many as names are given."""
    names = first.split()
    colours = (SEEN, *OTHERS[1:])[: len(names) - 1]
    widths = [edge / 2**at for at in range(len(names))]  # the largest first
    for width, colour in zip(widths, (UNSEEN, *reversed(colours)), strict=True):
        yield Box(x, y + edge - width, width, width, colour, 6)
    for width, name in zip(widths, reversed(names), strict=True):
        size = min(24, width * 0.37)
        colour = LOOKS if width == edge else BACKGROUND
        place = (x + width - size * 1.75, y + edge - width + size * 1.3)
        yield Text(*place, name, size, colour, bold=True)


def four_stages(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw the stages up to 8K."""
    yield from stages(x, y, edge, "1K 2K 4K 8K")


def one_step(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a picture that is enlarged by four at once."""
    yield Box(x, y, edge, edge, UNSEEN, 6)
    yield Box(x, y + edge * 0.75, edge / 4, edge / 4, SEEN, 6)
    yield Text(x + 14, y + edge - 22, "1K", 24, BACKGROUND, bold=True)
    yield Text(x + edge - 44, y + 34, "4K", 24, LOOKS, bold=True)


def one_slice(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw the slice of the picture that is computed at a time."""
    slices = (UNSEEN, SEEN, UNSEEN, UNSEEN, UNSEEN, UNSEEN)
    yield from bands(x, y, edge, colours=slices, tokens=12)


def shared_rows(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a picture whose rows are shared out."""
    yield from bands(x, y, edge, colours=OTHERS, tokens=12)


def shared_tiles(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw tiles that are shared out."""
    step = edge / 4
    for at in range(16):
        row, column = divmod(at, 4)
        place = (x + column * step + 3, y + row * step + 3, step - 6, step - 6)
        yield Box(*place, OTHERS[(at * 3 + row) % 4], 8)


def two_machines(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw two machines, each with half of a picture."""
    for at, colour in enumerate(OTHERS[:2]):
        top = y + at * (edge / 2 + 5)
        yield Box(x - 4, top, edge + 8, edge / 2 - 5, UNSEEN, 12)
        yield Text(x + 12, top + 34, "AB"[at], 26, colour, bold=True)
        step = (edge / 2 - 25) / 5
        for row in range(5):
            for column in range(10):
                place = (x + 46 + column * step, top + 10 + row * step)
                yield Box(*place, step * 0.85, step * 0.85, colour, 3)


def reach(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw how far three blocks look, each with a disc of its own."""
    half = edge / 2 - 6
    for at, radius in enumerate((2, 4, 6)):
        right, down = ((0, 0), (1, 0), (0, 1))[at]
        place = (x + right * (half + 12), y + down * (half + 12), half)
        yield from window(*place, tokens=11, radius=radius, at=(5, 5))
    yield Text(x + edge / 2 + 14, y + edge * 0.78, "a radius", 21, MUTED)
    yield Text(x + edge / 2 + 14, y + edge * 0.88, "per block", 21, MUTED)


def thin_factors(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a matrix as the product of two thin ones."""
    inner = edge * 0.62
    yield Box(x, y, inner, inner, UNSEEN, 8)
    yield Text(x + 18, y + inner / 2 + 8, "3.6 GB", 28, LOOKS, bold=True)
    yield Box(x + inner + 14, y, 26, inner, SEEN, 6)
    yield Box(x, y + inner + 14, inner, 26, SEEN, 6)
    yield Text(x, y + edge - 8, "0.3 GB at rank 128", 21, MUTED)


def either_order(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a LoRA and CLEAR in both orders, which give one picture."""
    for row, names in enumerate((("LoRA", "CLEAR"), ("CLEAR", "LoRA"))):
        for column, name in enumerate(names):
            ours = name == "CLEAR"
            place = (x + column * edge * 0.52, y + edge * (0.12 + 0.42 * row))
            yield Box(*place, edge * 0.48, edge * 0.26, SEEN if ours else OTHERS[1], 12)
            inset = (0.1 if ours else 0.14) * edge
            yield Text(place[0] + inset, place[1] + edge * 0.165, name, 26, BACKGROUND, bold=True)
    yield Text(x + edge * 0.2, y + edge * 0.97, "the same picture", 22, MUTED)


def opened(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw a node that is opened, with nodes in it."""
    yield Box(x, y, edge, edge, UNSEEN, 14)
    yield Box(x, y, edge, edge * 0.14, SEEN, 14)
    yield Text(x + 14, y + edge * 0.1, "CLEAR Upscale Stage", 22, BACKGROUND, bold=True)
    names = ("enlarge", "encode", "add noise", "last steps", "decode")
    for at, name in enumerate(names):
        top = y + edge * (0.19 + 0.16 * at)
        yield Box(x + 14, top, edge - 28, edge * 0.12, BACKGROUND, 8)
        yield Text(x + 30, top + edge * 0.083, name, 20, LOOKS)


def compared(x: float, y: float, edge: float) -> Iterator[Shape]:
    """Draw two pictures that are nearly alike, and where they differ."""
    half = edge / 2 - 10
    far = x + half + 20
    yield Box(x, y, half, half, OTHERS[1], 8)
    yield Box(far, y, half, half, SEEN, 8)
    yield Text(x + 16, y + half / 2 + 8, "full", 26, BACKGROUND, bold=True)
    yield Text(far + 16, y + half / 2 + 8, "CLEAR", 26, BACKGROUND, bold=True)
    step = half / 8
    for at in range(64):
        row, column = divmod(at, 8)
        differs = (row * 5 + column * 3) % 11 == 0
        place = (x + column * step + 1, y + half + 20 + row * step + 1)
        yield Box(*place, step - 2, step - 2, LOOKS if differs else UNSEEN, 3)
    yield Text(far, y + half * 1.5 + 10, "the difference,", 20, MUTED)
    yield Text(far, y + half * 1.5 + 38, "in a table", 20, MUTED)


def bands(
    x: float, y: float, edge: float, *, colours: tuple[str, ...], tokens: int
) -> Iterator[Shape]:
    """Yield a square of tokens whose rows are shared out among colours, from above.

    Args:
        x: Of the left edge.
        y: Of the upper edge.
        edge: Width and height.
        colours: From the first row on, equal parts.
        tokens: In a row and in a column.
    """
    step = edge / tokens
    side, free = step * (1 - GAP), step * GAP / 2
    for row in range(tokens):
        colour = colours[row * len(colours) // tokens]
        for column in range(tokens):
            place = (x + column * step + free, y + row * step + free)
            yield Box(*place, side, side, colour, side * 0.2)
