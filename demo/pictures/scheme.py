"""Thumbnails as drawings: what a workflow does, and the gain as two bars where it is known.

Figures come from the committed results of benchmarks, or from CLEAR Plan's arithmetic; nothing is
written down twice. Where the demo's models paint, their picture and their seconds take the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PIL import Image, ImageOps

from clear_attention.units import GIB
from tools import figures, fit_table
from tools.drawing import (
    BACKGROUND,
    LOOKS,
    MUTED,
    SEEN,
    UNSEEN,
    Box,
    Drawing,
    Photo,
    Shape,
    Text,
    text_width,
)
from tools.figures import Figure
from tools.host import ROOT

RESULTS = ROOT / "benchmarks" / "results"
EDGE_PX, MARGIN_PX = 512, 28
ROOM_PX = EDGE_PX - 2 * MARGIN_PX
LARGEST_TITLE_PX = 34
TOP_PX = 108  # of what is under the words
BARS_PX = 396
ON_CPU = "one step, small model, two CPU cores"


@dataclass(frozen=True)
class Gain:
    """What full attention, or the usual way, costs and what this does.

    Attributes:
        usual: Of the longer bar.
        ours: Of the shorter one.
        unit: Of both.
        note: Where the figures come from.
        names: Of both bars.
    """

    usual: float
    ours: float
    unit: str
    note: str
    names: tuple[str, str] = ("full", "CLEAR")


@dataclass(frozen=True)
class Scheme:
    """What a thumbnail shows.

    Attributes:
        figure: What is drawn.
        words: A line under the title.
        gain: Makes the bars, or None without any.
    """

    figure: Figure
    words: str
    gain: Callable[[], Gain] | None = None


def drawing(title: str, scheme: Scheme) -> Drawing:
    """Draw a thumbnail.

    Args:
        title: Of the workflow.
        scheme: What to show.
    """
    gain = scheme.gain() if scheme.gain else None
    edge = 270 if gain else 350
    figure = scheme.figure((EDGE_PX - edge) / 2, TOP_PX, edge)
    return _thumbnail(title, scheme.words, figure, gain)


def painting(title: str, words: str, picture: Image.Image, gain: Gain | None) -> Drawing:
    """Draw a thumbnail around a picture.

    Args:
        title: Of the workflow.
        words: A line under the title.
        picture: Of any size; its middle is shown, as wide as it is or as high.
        gain: Makes the bars, or None without any.
    """
    height = (BARS_PX - 14 if gain else EDGE_PX - MARGIN_PX) - TOP_PX
    shown = ImageOps.fit(picture, (ROOM_PX, height), Image.Resampling.LANCZOS)
    photo = Photo(MARGIN_PX, TOP_PX, ROOM_PX, height, shown)
    return _thumbnail(title, words, [photo], gain)


def _thumbnail(title: str, words: str, shown: Iterable[Shape], gain: Gain | None) -> Drawing:
    size = min(LARGEST_TITLE_PX, LARGEST_TITLE_PX * ROOM_PX / text_width(title, LARGEST_TITLE_PX))
    shapes: list[Shape] = [
        Box(0, 0, EDGE_PX, EDGE_PX, BACKGROUND),
        Text(MARGIN_PX, 56, title, size, bold=True),
        Text(MARGIN_PX, 86, words, 18, SEEN),
        *shown,
    ]
    return Drawing(EDGE_PX, EDGE_PX, (*shapes, *(_bars(gain) if gain else ())))


def _bars(gain: Gain) -> Iterator[Shape]:
    times, better = gain.usual / gain.ours, "faster" if gain.unit == "s" else "less"
    for at, (name, value) in enumerate(zip(gain.names, (gain.usual, gain.ours), strict=True)):
        ours, top = bool(at), BARS_PX + 38 * at
        width = max(8.0, ROOM_PX * value / gain.usual)
        yield Box(MARGIN_PX, top, width, 30, SEEN if ours else UNSEEN, 6)
        words = f"{name} {value:.3g} {gain.unit}" + (f", {times:.1f}x {better}" if ours else "")
        inside = text_width(words, 18) + 20 < width
        colour = BACKGROUND if inside and ours else LOOKS
        left = MARGIN_PX + (10 if inside else width + 10)
        yield Text(left, top + 21, words, 18, colour, bold=ours)
    yield Text(MARGIN_PX, 492, gain.note, 15, MUTED)


def measured(file: str, row: str, note: str = ON_CPU) -> Callable[[], Gain]:
    """Return a reader of the seconds in a committed result.

    Args:
        file: Beginning of its name.
        row: Beginning of the table's row; two numbers follow, of which the larger is full.
        note: Where the figures come from.
    """

    def read() -> Gain:
        (path,) = RESULTS.glob(f"{file}_*.md")
        lines = path.read_text(encoding="utf-8").splitlines()
        (line,) = [line for line in lines if line.startswith(f"| {row} |")]
        cells = line.removeprefix(f"| {row} |").split("|")[:2]
        ours, usual = sorted(float(re.findall(r"[\d.]+", cell)[0]) for cell in cells)
        return Gain(usual, ours, "s", note)

    return read


def slices() -> Gain:
    """Return the memory of a step of 2048 pixels, whole and in slices."""
    whole, sliced = (fit_table.step_memory(2048, slices=each) / GIB for each in (False, True))
    note = "memory of a step beside the weights, calculated"
    return Gain(whole, sliced, "GiB", note, ("whole", "slices"))


NARROW = "one step, narrow model, two CPU cores"
SCHEMES = {
    "03": Scheme(figures.one_slice, "fp8 weights, layers in slices", slices),
    "05": Scheme(figures.reference, "at 2048 pixels, all of your picture in sight"),
    "07": Scheme(figures.four_stages, "in stages"),
    "08": Scheme(
        figures.disc,
        "without training",
        measured("families", "Z-Image (1 refiner, 1 joint) | 2048 x 2048", NARROW),
    ),
    "09": Scheme(
        figures.disc,
        "without training",
        measured("families", "FLUX.2 (1 double, 1 single) | 2048 x 2048", NARROW),
    ),
    "10": Scheme(figures.disc, "without training"),
    "11": Scheme(
        figures.reference,
        "at 2048 pixels, without training",
        measured("families", "Qwen-Image (2 joint) | 2048 x 2048", NARROW),
    ),
    "12": Scheme(figures.two_discs, "held to the small picture"),
    "13": Scheme(
        figures.one_step, "the last 14 of 20 steps, by SDEdit", measured("upscale", "4096 x 4096")
    ),
    "14": Scheme(figures.opened, "its stages as subgraphs of ComfyUI's nodes"),
    "15": Scheme(figures.compared, "your prompt on your model"),
}
"""By the number that a workflow's name begins with; the others are painted, see `easel`."""
