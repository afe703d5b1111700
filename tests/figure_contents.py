"""What a figure shows, read from matplotlib's objects: curves, marks, ticks and the legend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def figure_of(draw: Callable[..., Any], *args: Any) -> Figure:
    """Call a function that draws, and return its figure before it becomes pixels."""
    with patch.dict(draw.__globals__, pixels_of=lambda figure: figure):
        figure = draw(*args)
    figure.draw_without_rendering()
    return figure


def curves(axes: Axes) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """List the lines of axes in the order of drawing: label ("" for none), colour, points."""
    return [
        (label_of(line), to_hex(line.get_color()), [(float(x), float(y)) for x, y in points])
        for line in axes.lines
        for points in [line.get_xydata()]
    ]


def label_of(artist: Any) -> str:
    """Return an artist's label; matplotlib's own, which no legend shows, are none."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def ticks(axis: Any) -> dict[float, str]:
    """Return the text at each labelled place of an axis."""
    texts = [text.get_text() for text in axis.get_ticklabels()]
    return dict(zip(map(float, axis.get_ticklocs()), texts, strict=True))


def legend(owner: Axes | Figure) -> dict[str, Any]:
    """Return the legend's handles by their texts."""
    (found,) = owner.legends if isinstance(owner, Figure) else [owner.get_legend()]
    texts = [text.get_text() for text in found.get_texts()]
    return dict(zip(texts, found.legend_handles, strict=True))
