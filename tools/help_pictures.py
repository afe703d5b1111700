"""Draw the picture of a help page: where the node stands, and what it does to a picture.

``python3 tools/help_pictures.py`` writes ``web/docs/<node>/where.png`` of every node that has one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from tools.drawing import BACKGROUND, LOOKS, MUTED, SEEN, UNSEEN, Box, Drawing, Shape, Text, window
from tools.host import ROOT

FOLDER = ROOT / "web" / "docs"
WIDTH, HEIGHT, MARGIN = 760, 300, 20
EDGE = HEIGHT - 2 * MARGIN
LEFT = WIDTH - MARGIN - EDGE  # of the square on the right
OTHERS = (SEEN, "#5aa9e6", "#7bc47f", "#e07a5f")
"""Colours of GPUs that share a picture."""
COLOURS = 64  # of the file: flat shapes need few

Figure = Callable[[], Iterator[Shape]]


def drawing(chain: tuple[str, str, str], figure: Figure) -> Drawing:
    """Draw three nodes, the middle one of them this pack's, beside a figure."""
    ground = Box(0, 0, WIDTH, HEIGHT, BACKGROUND, 14)
    return Drawing(WIDTH, HEIGHT, (ground, *_chain(chain), *figure()))


def _chain(names: tuple[str, str, str]) -> Iterator[Shape]:
    height, gap = 64, (EDGE - 3 * 64) / 2
    width = LEFT - 3 * MARGIN
    yield Box(MARGIN + 40, MARGIN + 20, 5, EDGE - 40, MUTED)
    for at, name in enumerate(names):
        ours = at == 1
        top = MARGIN + at * (height + gap)
        yield Box(MARGIN, top, width, height, SEEN if ours else UNSEEN, 12)
        colour = BACKGROUND if ours else LOOKS
        yield Text(MARGIN + 20, top + 41, name, 25, colour, bold=ours)


def disc() -> Iterator[Shape]:
    """Draw a token and the disc that it sees."""
    yield from window(LEFT, MARGIN, EDGE, tokens=13, radius=5, at=(6, 6))


def wrapped_disc() -> Iterator[Shape]:
    """Draw a disc that reaches across two edges."""
    yield from window(LEFT, MARGIN, EDGE, tokens=13, radius=5, at=(1, 1), wrap=True)


def copies() -> Iterator[Shape]:
    """Draw four copies of a picture, side by side."""
    half = EDGE / 2
    for x, y in ((0, 0), (half, 0), (0, half), (half, half)):
        places = (LEFT + x, MARGIN + y, half)
        yield from window(*places, tokens=8, radius=3, at=(0, 0), wrap=True)


def two_discs() -> Iterator[Shape]:
    """Draw the disc of a ControlNet beside that of its model."""
    half = EDGE / 2 - 5
    yield from window(LEFT, MARGIN, half, tokens=7, radius=3, at=(3, 3))
    yield from window(LEFT + half + 10, MARGIN + half + 10, half, tokens=7, radius=3, at=(3, 3))
    yield Text(LEFT + half + 16, MARGIN + half / 2 + 8, "the net", 22, MUTED)
    yield Text(LEFT + 6, MARGIN + half * 1.5 + 18, "the model", 22, MUTED)


def larger() -> Iterator[Shape]:
    """Draw a picture of the trained size in a larger one."""
    yield from bands((UNSEEN,), rows=12, tokens=12)
    yield from bands((SEEN,), rows=4, tokens=12, columns=4)


def stages() -> Iterator[Shape]:
    """Draw three pictures, each twice as wide as the one before."""
    for edge, colour in ((EDGE, UNSEEN), (EDGE / 2, OTHERS[1]), (EDGE / 4, SEEN)):
        yield Box(LEFT, MARGIN + EDGE - edge, edge, edge, colour, 6)
    for edge, size in ((EDGE, "4K"), (EDGE / 2, "2K"), (EDGE / 4, "1K")):
        colour = LOOKS if edge == EDGE else BACKGROUND
        yield Text(LEFT + edge - 42, MARGIN + EDGE - edge + 32, size, 24, colour, bold=True)


def one_slice() -> Iterator[Shape]:
    """Draw the slice of the picture that is computed at a time."""
    yield from bands((UNSEEN, SEEN, UNSEEN, UNSEEN, UNSEEN, UNSEEN), rows=12, tokens=12)


def shared_rows() -> Iterator[Shape]:
    """Draw a picture whose rows are shared out."""
    yield from bands(OTHERS, rows=12, tokens=12)


def shared_tiles() -> Iterator[Shape]:
    """Draw tiles that are shared out."""
    step = EDGE / 4
    for at in range(16):
        row, column = divmod(at, 4)
        place = (LEFT + column * step + 3, MARGIN + row * step + 3, step - 6, step - 6)
        yield Box(*place, OTHERS[(at * 3 + row) % 4], 8)


def two_machines() -> Iterator[Shape]:
    """Draw two machines, each with half of a picture."""
    for at, colour in enumerate(OTHERS[:2]):
        top = MARGIN + at * (EDGE / 2 + 5)
        yield Box(LEFT - 4, top, EDGE + 8, EDGE / 2 - 5, UNSEEN, 12)
        yield Text(LEFT + 12, top + 34, "AB"[at], 26, colour, bold=True)
        step = (EDGE / 2 - 25) / 5
        for row in range(5):
            for column in range(10):
                x, y = LEFT + 46 + column * step, top + 10 + row * step
                yield Box(x, y, step * 0.85, step * 0.85, colour, 3)


def reach() -> Iterator[Shape]:
    """Draw how far three blocks look, each with a disc of its own."""
    for at, radius in enumerate((2, 4, 6)):
        edge = EDGE / 2 - 6
        x, y = ((0, 0), (1, 0), (0, 1))[at]
        places = (LEFT + x * (edge + 12), MARGIN + y * (edge + 12), edge)
        yield from window(*places, tokens=11, radius=radius, at=(5, 5))
    yield Text(LEFT + EDGE / 2 + 14, MARGIN + EDGE * 0.78, "a radius", 21, MUTED)
    yield Text(LEFT + EDGE / 2 + 14, MARGIN + EDGE * 0.88, "per block", 21, MUTED)


def thin_factors() -> Iterator[Shape]:
    """Draw a matrix as the product of two thin ones."""
    edge = EDGE * 0.62
    yield Box(LEFT, MARGIN, edge, edge, UNSEEN, 8)
    yield Text(LEFT + 18, MARGIN + edge / 2 + 8, "3.6 GB", 28, LOOKS, bold=True)
    yield Box(LEFT + edge + 14, MARGIN, 26, edge, SEEN, 6)
    yield Box(LEFT, MARGIN + edge + 14, edge, 26, SEEN, 6)
    yield Text(LEFT, MARGIN + EDGE - 8, "0.3 GB at rank 128", 21, MUTED)


def bands(
    colours: tuple[str, ...], *, rows: int, tokens: int, columns: int | None = None
) -> Iterator[Shape]:
    """Yield the tokens of some rows, shared out among colours from above.

    Args:
        colours: From the first row on, equal parts.
        rows: How many rows have tokens.
        tokens: In a row of the whole square.
        columns: How many of a row are there; all, if None.
    """
    step = EDGE / tokens
    for row in range(rows):
        colour = colours[row * len(colours) // rows]
        for column in range(columns or tokens):
            x, y = LEFT + (column + 0.075) * step, MARGIN + (row + 0.075) * step
            yield Box(x, y, step * 0.85, step * 0.85, colour, step * 0.17)


LOAD, CLEAR, SAMPLE, SAVE = "Load Diffusion Model", "Load CLEAR Attention", "KSampler", "Save Image"
PICTURES: dict[str, tuple[tuple[str, str, str], Figure]] = {
    "CLEARLoader": ((LOAD, CLEAR, SAMPLE), disc),
    "CLEARAttention": ((LOAD, "CLEAR Attention", SAMPLE), disc),
    "CLEARHighRes": ((CLEAR, "CLEAR High Resolution", SAMPLE), larger),
    "CLEARSeamless": ((CLEAR, "CLEAR Seamless", SAMPLE), wrapped_disc),
    "CLEARSeamlessDecode": ((SAMPLE, "CLEAR Seamless Decode", SAVE), copies),
    "CLEARControlNet": (
        ("Load ControlNet Model", "CLEAR ControlNet", "Apply ControlNet"),
        two_discs,
    ),
    "CLEARUpscale": ((CLEAR, "CLEAR Upscale", SAVE), stages),
    "CLEARLowMemory": ((CLEAR, "CLEAR Low Memory", SAMPLE), one_slice),
    "CLEARParallel": ((CLEAR, "CLEAR Parallel", SAMPLE), shared_rows),
    "CLEARParallelDecode": ((SAMPLE, "CLEAR Parallel Decode", SAVE), shared_tiles),
    "CLEARCluster": ((CLEAR, "CLEAR Cluster", SAMPLE), two_machines),
    "CLEARLocality": ((LOAD, "CLEAR Locality Probe", "Preview Image"), reach),
    "CLEARExtractLoRA": ((LOAD, "Extract CLEAR LoRA", CLEAR), thin_factors),
}
"""The other help pages show what their node draws."""


def main() -> None:
    """Write the picture of every node."""
    from clear_attention.atomic_files import written_whole

    for node_id, (chain, figure) in PICTURES.items():
        image = drawing(chain, figure).image()
        flat = image.quantize(COLOURS, Image.Quantize.FASTOCTREE)
        with written_whole(FOLDER / node_id / "where.png") as part:
            flat.save(part, "PNG", optimize=True)


if __name__ == "__main__":
    from tools.environment import reexec_in_venv

    reexec_in_venv()
    main()
