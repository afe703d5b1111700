"""The sheet of a comparison: a row per picture, a column per model, with titles and captions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...compare.measurement import ANOTHER_SEED, Measurement
from ...compare.pictures import psnr
from ...compare.table import percent
from ..core.pictures import GAP
from .run import Row

GAIN = 4
"""By which differences are multiplied, in every sheet: what is white differs by a quarter."""

MOST_PIXELS = 2_500_000
"""Of all pictures of a sheet together: a PNG of noise of this size stays below 8 MB."""

LARGEST_PX = 512
LEAST_PX = 64
NO_COLOURS = "Connect a VAE to see the pictures of this model."
INK, FAINT, RED = "#111111", "#666666", "#b00000"


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture with what stands below it.

    Attributes:
        picture: ``[H, W, 3]`` in [0, 1], or None where there is nothing to show.
        caption: A line or two.
        fault: What is wrong with it, in place of the caption.
    """

    picture: Tensor | None
    caption: str = ""
    fault: str = ""


def sheet_of(rows: Sequence[Row], teacher: str, others: Sequence[str], another: int) -> Tensor:
    """Draw a comparison.

    Args:
        rows: What was painted.
        teacher: Name of the model with which the others are compared.
        others: Names of the others.
        another: The seed outside of the rows.

    Returns:
        ``[H, W, 3]`` in [0, 1].
    """
    titles = [teacher]
    for name in others:
        titles += [name, f"difference x {GAIN}"]
    titles.append(f"{teacher}, seed {another}")
    return draw(titles, [_cells(row, teacher, others) for row in rows])


def shrunk(picture: Tensor, edge: int) -> Tensor:
    """Return a picture whose longer side has at most so many pixels: ``[H, W, 3]``."""
    height, width = picture.shape[:2]
    scale = edge / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = picture.float().movedim(-1, 0)[None]
    return torch.nn.functional.interpolate(image, size, mode="area")[0].movedim(0, -1)


def edge_for(pictures: int) -> int:
    """Return the longer side of so many pictures in pixels."""
    return max(LEAST_PX, min(LARGEST_PX, math.isqrt(MOST_PIXELS // max(1, pictures))))


def draw(titles: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Tensor:
    """Lay cells out under titles, on white: ``[H, W, 3]`` in [0, 1]."""
    edge = edge_for(len(titles) * len(rows))
    size = max(9, min(18, edge // 18))
    pictures = [[_image(cell, edge, size) for cell in row] for row in rows]
    flat = [image for row in pictures for image in row]
    width, height = max(each.width for each in flat), max(each.height for each in flat)
    line = size + 3
    heads = [_wrapped(title, width, size) for title in titles]
    head = max(len(each) for each in heads) * line + GAP
    foot = max(len(_wrapped(_text(cell), width, size)) for row in rows for cell in row) * line + GAP
    page = Image.new(
        "RGB",
        (len(titles) * (width + GAP) - GAP, head + len(rows) * (height + foot)),
        "white",
    )
    pen = ImageDraw.Draw(page)
    for column, text in enumerate(heads):
        left = column * (width + GAP)
        pen.multiline_text((left, 0), "\n".join(text), fill=INK, font_size=size, spacing=3)
        for at, (images, cells) in enumerate(zip(pictures, rows, strict=True)):
            top = head + at * (height + foot)
            page.paste(images[column], (left, top))
            caption = "\n".join(_wrapped(_text(cells[column]), width, size))
            ink = RED if cells[column].fault else FAINT
            place = (left, top + height + 1)
            pen.multiline_text(place, caption, fill=ink, font_size=size, spacing=3)
    return torch.from_numpy(np.array(page)).float() / 255


def _cells(row: Row, teacher: str, others: Sequence[str]) -> list[Cell]:
    full, found = row.pictures[teacher], row.measurements
    place = f", picture {row.place + 1}" if row.place else ""
    own = found[teacher]
    cells = [Cell(full, f"seed {row.seed}{place}\n{own.seconds:.2f} s", own.fault)]
    for name in others:
        picture = row.pictures[name]
        cells.append(Cell(picture, _caption(found[name]), found[name].fault))
        cells.append(Cell(_difference(picture, full), _closeness(found[name], found[ANOTHER_SEED])))
    other = found[ANOTHER_SEED]
    cells.append(Cell(row.pictures[ANOTHER_SEED], _plain(other), other.fault))
    return cells


def _caption(found: Measurement) -> str:
    return f"{found.seconds:.2f} s\n{percent(found.computed)} of the pairs"


def _closeness(found: Measurement, other: Measurement) -> str:
    """Return how near a picture is, and its velocity error as a share of another seed's."""
    if found.distance is None:
        return ""
    text = _plain(found)
    if other.distance is None or not other.distance.mean_velocity:
        return text
    share = found.distance.mean_velocity / other.distance.mean_velocity
    return f"{text}\nvelocity: {percent(share)} of two seeds"


def _plain(found: Measurement) -> str:
    if found.distance is None:
        return ""
    ratio = psnr(found.distance.squared)
    return "equal" if ratio == math.inf else f"{ratio:.1f} dB"


def _difference(picture: Tensor | None, full: Tensor | None) -> Tensor | None:
    if picture is None or full is None:
        return None
    return ((picture - full).abs() * GAIN).clamp(0, 1)


def _text(cell: Cell) -> str:
    return cell.fault or cell.caption


def _image(cell: Cell, edge: int, size: int) -> Image.Image:
    if cell.picture is None:
        image = Image.new("RGB", (edge, edge), "#dddddd")
        text = "\n".join(_wrapped(NO_COLOURS, edge, size))
        ImageDraw.Draw(image).multiline_text((4, 4), text, fill=INK, font_size=size)
        return image
    values = (shrunk(cell.picture, edge).clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(values)
    scale = edge // max(image.size)  # small latents
    return image.resize([side * scale for side in image.size], 0) if scale > 1 else image


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Break a text into lines that fit a column; a letter is about half as wide as high."""
    letters = max(6, int(width / (0.55 * size)))
    return [line for part in text.split("\n") for line in textwrap.wrap(part, letters) or [""]]
