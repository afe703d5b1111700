"""The losses of a run as a figure."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..plotting import new_figure, pixels_of
from .log import read

SIZE = (9.0, 5.0)  # inches
NOT_LOSSES = ("gradient", "rate")
SMOOTHED = 20  # entries that the line of a training loss averages over


def draw(folder: Path) -> Tensor:
    """Draw a run's losses over its updates: training data as lines, held-out data as dots.

    Args:
        folder: The run's folder, with its log.

    Returns:
        ``[height_px, width_px, 3]``, float32 from 0 to 1.

    Raises:
        ModuleNotFoundError: Matplotlib is missing; the message says how to install it.
    """
    figure = new_figure(*SIZE, "The plot of the losses")
    axes = figure.subplots()
    rows = [row for row in read(folder) if row[2] not in NOT_LOSSES and row[3] > 0]
    names = dict.fromkeys(name for _, _, name, _ in rows)
    for number, name in enumerate(names):
        colour = f"C{number}"
        steps, values = _series(rows, "train", name)
        axes.plot(steps, smooth(values), color=colour, label=name, linewidth=1.5)
        steps, values = _series(rows, "held_out", name)
        axes.plot(steps, values, "o", color=colour, markersize=5, markeredgecolor="white")
    axes.set(xlabel="updates", ylabel="loss (dots: held-out data)", yscale="log")
    axes.grid(alpha=0.25)
    if names:
        axes.legend(frameon=False)
    return pixels_of(figure)


def smooth(values: list[float]) -> list[float]:
    """Average each value with those before it."""
    return [
        sum(values[max(0, end - SMOOTHED) : end]) / min(end, SMOOTHED)
        for end in range(1, len(values) + 1)
    ]


def _series(
    rows: list[tuple[int, str, str, float]], kind: str, name: str
) -> tuple[list[int], list[float]]:
    chosen = [(step, value) for step, k, n, value in rows if (k, n) == (kind, name)]
    return [step for step, _ in chosen], [value for _, value in chosen]
