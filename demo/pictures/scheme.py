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
BADGE_PX = 64  # ComfyUI's gallery lays one of this height over the left upper corner
BARS_PX = 406
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
        words: A line under it.
        gain: Makes the bars, or None without any.
    """

    figure: Figure
    words: str
    gain: Callable[[], Gain] | None = None


def drawing(scheme: Scheme) -> Drawing:
    """Draw a thumbnail; its title is not on it, since galleries write it below."""
    gain = scheme.gain() if scheme.gain else None
    edge = shown_px(gain) - BADGE_PX - 4
    figure = scheme.figure((EDGE_PX - edge) / 2, BADGE_PX, edge)
    return _thumbnail(scheme.words, figure, gain)


def painting(words: str, picture: Image.Image, gain: Gain | None) -> Drawing:
    """Draw a thumbnail with a picture.

    Args:
        words: A line under the picture.
        picture: Of any size; its middle is shown, as wide as it is or as high.
        gain: Makes the bars, or None without any.
    """
    size = EDGE_PX, shown_px(gain)
    shown = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return _thumbnail(words, [Photo(0, 0, *size, shown)], gain)


def shown_px(gain: Gain | None) -> int:
    """Return the height above the words."""
    return 362 if gain else 446


def _thumbnail(words: str, shown: Iterable[Shape], gain: Gain | None) -> Drawing:
    line = Text(MARGIN_PX, shown_px(gain) + 30, words, 19, SEEN, bold=True)
    ground = Box(0, 0, EDGE_PX, EDGE_PX, BACKGROUND)
    return Drawing(EDGE_PX, EDGE_PX, (ground, *shown, line, *(_bars(gain) if gain else ())))


def _bars(gain: Gain) -> Iterator[Shape]:
    times, better = gain.usual / gain.ours, "faster" if gain.unit == "s" else "less"
    for at, (name, value) in enumerate(zip(gain.names, (gain.usual, gain.ours), strict=True)):
        ours, top = bool(at), BARS_PX + 38 * at
        width = max(8.0, ROOM_PX * value / gain.usual)
        yield Box(MARGIN_PX, top, width, 30, SEEN if ours else UNSEEN, 6)
        words = f"{name} {value:.3g} {gain.unit}" + (f", {times:.1f}x {better}" if ours else "")
        inside = text_width(words, 18) + 20 < width
        colour = BACKGROUND if inside and ours else LOOKS
        free = ROOM_PX - (0 if inside else width) - 10
        size = min(18, 18 * free / text_width(words, 18))
        left = MARGIN_PX + (10 if inside else width + 10)
        yield Text(left, top + 21, words, size, colour, bold=ours)
    yield Text(MARGIN_PX, 500, gain.note, 15, MUTED)


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
    "02": Scheme(
        figures.stages, "in stages, your picture held", measured("upscale", "4096 x 4096")
    ),
    "03": Scheme(figures.one_slice, "fp8 weights, layers in slices", slices),
    "04": Scheme(figures.either_order, "in either order"),
    "05": Scheme(figures.reference, "at 2048 pixels, all of your picture in sight"),
    "06": Scheme(figures.copies, "copies fit on every side"),
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
    "14": Scheme(figures.opened, "its stages in ComfyUI's own nodes"),
    "15": Scheme(figures.compared, "your prompt on your model"),
}
"""By the number that a workflow's name begins with; the others are painted, see `easel`."""
