"""The locality of a model's blocks as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plotting import new_figure, pixels_of
from .chosen_figure import draw_choice
from .report import LocalityReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure, SubFigure

WIDTH, ROW, FRAME = 11.5, 0.2, 1.9  # inches
FEWEST_ROWS = 12
ENOUGH, TOO_SMALL = "#1f6f78", "#c8452d"


def draw(report: LocalityReport) -> Tensor:
    """Draw what each radius keeps in each block, and the blocks against the radius to judge.

    Below it, where radii were chosen: the errors of each radius, and the choice.

    Returns:
        ``[height_px, width_px, 3]``, float32 from 0 to 1.

    Raises:
        ModuleNotFoundError: Matplotlib is missing; the message says how to install it.
    """
    height = FRAME + ROW * max(FEWEST_ROWS, len(report.blocks))
    if report.choice is None:
        figure = new_figure(WIDTH, height, "The plot")
        _draw_panels(figure, report)
    else:
        figure = new_figure(WIDTH, 2 * height, "The plot")
        halves: Any = figure.subfigures(2, 1)  # an array, which the stubs do not know
        _draw_panels(halves[0], report)
        draw_choice(halves[1], report.choice)
    return pixels_of(figure)


def _draw_panels(figure: Figure | SubFigure, report: LocalityReport) -> None:
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    mesh = _draw_heat_map(left, report)
    _draw_needed_radii(left, report)
    _draw_kept(right, report)
    figure.colorbar(mesh, ax=left, pad=0.01, fraction=0.04, aspect=50, format="{x:.0%}")
    rows = len(report.blocks)
    left.set_yticks(range(rows), list(report.blocks), fontsize=8)
    left.set_ylim(rows - 0.5, -0.5)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _draw_heat_map(axes: Axes, report: LocalityReport) -> QuadMesh:
    kept = [found.kept().mean(0) for found in report.blocks.values()]
    radii = max(map(len, kept))
    kept = [F.pad(each, (0, radii - len(each)), value=1.0) for each in kept]
    mesh = axes.pcolormesh(
        [radius + 0.5 for radius in range(radii + 1)],
        [row - 0.5 for row in range(len(kept) + 1)],
        torch.stack(kept).tolist(),
        cmap="viridis",
        vmax=1.0,
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.75, radii + 0.5)
    powers = [2**power for power in range(radii.bit_length())]
    axes.set_xticks(powers, list(map(str, powers)))
    axes.set_xlabel("radius in tokens (logarithmic)")
    axes.set_title("Share of an image token's attention that CLEAR keeps", fontsize=11)
    return mesh


def _draw_needed_radii(axes: Axes, report: LocalityReport) -> None:
    from matplotlib.patheffects import withStroke

    heads = [found.head_radii(report.share) for found in report.blocks.values()]
    # White inside black can be read on every colour of the map.
    outline = [withStroke(linewidth=3, foreground="black")]
    axes.axvline(
        report.radius,
        color="white",
        linestyle="--",
        path_effects=outline,
        label=f"radius {report.radius}",
    )
    for row, radii in enumerate(heads):
        axes.plot(
            [int(radii.min()), int(radii.max())],
            [row, row],
            color="white",
            path_effects=outline,
            label="" if row else f"{report.share:.4g} kept: from the most to the least local head",
        )
    axes.scatter(
        list(report.radii().values()),
        range(len(heads)),
        color="white",
        edgecolor="black",
        zorder=3,
        label=f"{report.share:.4g} kept on average: the suggested radius",
    )


def _draw_kept(axes: Axes, report: LocalityReport) -> None:
    small = set(report.too_small_for())
    for row, (name, found) in enumerate(report.blocks.items()):
        kept = found.kept_at(report.radius)
        color = TOO_SMALL if name in small else ENOUGH
        axes.hlines(row, float(kept.min()), float(kept.max()), colors=color, linewidth=1.5)
        axes.plot(float(kept.mean()), row, "o", color=color)
    axes.axvline(report.share, color="black", linestyle="--", linewidth=1)
    axes.tick_params(labelleft=False)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("all heads, and their mean")
    axes.set_title(f"Kept at radius {report.radius}", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
