"""A choice of radii as a figure: the error of each radius in each block, and who got which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .choose import Choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure, SubFigure

DECADES = 4
"""Below the largest error; what is smaller has the colour of nothing."""
BEFORE, CHOSEN = "#9aa5ab", "#1f6f78"


def draw_choice(figure: Figure | SubFigure, choice: Choice[str]) -> None:
    """Draw the errors of all radii and blocks, the chosen radii, and the errors that are left.

    Args:
        figure: To draw on.
        choice: By the blocks' names.
    """
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    mesh = _draw_errors(left, choice)
    _draw_radii(left, choice)
    _draw_parts(right, choice)
    figure.colorbar(mesh, ax=left, pad=0.01, fraction=0.04, aspect=50)
    rows = len(choice.radii)
    left.set_yticks(range(rows), list(choice.radii), fontsize=8)
    left.set_ylim(rows - 0.5, -0.5)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _draw_errors(axes: Axes, choice: Choice[str]) -> QuadMesh:
    from matplotlib.colors import LogNorm

    radii = range(1, max(cost.covering_radius for cost in choice.costs.values()) + 1)
    errors = [[cost.error(radius) for radius in radii] for cost in choice.costs.values()]
    largest = max(map(max, errors)) or 1.0
    least = largest / 10**DECADES
    mesh = axes.pcolormesh(
        [radius - 0.5 for radius in (*radii, len(radii) + 1)],
        [row - 0.5 for row in range(len(errors) + 1)],
        [[max(error, least) for error in row] for row in errors],
        cmap="magma",
        norm=LogNorm(least, largest),
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.75, len(radii) + 0.5)
    powers = [2**power for power in range(len(radii).bit_length())]
    axes.set_xticks(powers, list(map(str, powers)))
    axes.set_xlabel("radius in tokens (logarithmic)")
    axes.set_title("Squared error of the velocity by each radius in each block", fontsize=11)
    return mesh


def _draw_radii(axes: Axes, choice: Choice[str]) -> None:
    from matplotlib.patheffects import withStroke

    # White inside black can be read on every colour of the map.
    outline = [withStroke(linewidth=3, foreground="black")]
    axes.axvline(
        choice.one_radius,
        color="white",
        linestyle="--",
        path_effects=outline,
        label=f"one radius for the same work: {choice.one_radius}",
    )
    axes.scatter(
        list(choice.radii.values()),
        range(len(choice.radii)),
        color="white",
        edgecolor="black",
        zorder=3,
        label=f"chosen: {choice.share:.1%} of full attention's work",
    )


def _draw_parts(axes: Axes, choice: Choice[str]) -> None:
    """Draw each block's part of the errors that one radius makes, before and after."""
    one = choice.one_radius
    before = [cost.error(one) for cost in choice.costs.values()]
    after = [cost.error(choice.radii[name]) for name, cost in choice.costs.items()]
    whole = sum(before) or 1.0
    rows = range(len(before))
    axes.barh(rows, [error / whole for error in before], 0.8, color=BEFORE, label=f"radius {one}")
    axes.barh(rows, [error / whole for error in after], 0.4, color=CHOSEN, label="chosen")
    axes.tick_params(labelleft=False)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel(f"of the errors of radius {one}")
    axes.set_title(f"Errors together: {choice.gain:.0%}", fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.grid(axis="x", alpha=0.3)
