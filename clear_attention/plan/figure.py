"""What a step costs over the sizes of the picture, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..plotting import new_figure, pixels_of
from ..units import GIB
from .report import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 11.5, 4.6  # inches
FULL, CLEAR = "#c8452d", "#1f6f78"


def draw(plan: Plan) -> Tensor:
    """Draw seconds and memory of a step over the picture's edge, full attention against CLEAR.

    Returns:
        ``[height_px, width_px, 3]``, float32 from 0 to 1.

    Raises:
        ModuleNotFoundError: Matplotlib is missing; the message says how to install it.
    """
    figure = new_figure(WIDTH, HEIGHT, "The plot")
    left, right = figure.subplots(1, 2)
    sizes = plan.over_sizes()
    full, clear = zip(*sizes.values(), strict=True)
    edges = list(sizes)
    _draw_curves(left, edges, [each.seconds for each in full], [each.seconds for each in clear])
    _draw_curves(
        right,
        edges,
        [(plan.held(each) + plan.budget.weights) / GIB for each in full],
        [(plan.held(each) + plan.budget.weights) / GIB for each in clear],
    )
    _draw_planned(left, plan, plan.full.seconds, plan.clear.seconds)
    memory = [(plan.held(each) + plan.budget.weights) / GIB for each in (plan.full, plan.clear)]
    _draw_planned(right, plan, *memory)
    right.axhline(
        plan.budget.available / GIB, color="black", linestyle="--", linewidth=1, label="available"
    )
    left.set_title("Seconds per step", fontsize=11)
    right.set_title("GiB at the peak of a step, weights included", fontsize=11)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(f"{plan.title}; {plan.machine.device}", fontsize=9)
    return pixels_of(figure)


def _draw_curves(
    axes: Axes, edges: Sequence[int], full: Sequence[float], clear: Sequence[float]
) -> None:
    axes.plot(edges, full, "o-", color=FULL, label="full attention")
    axes.plot(edges, clear, "o-", color=CLEAR, label="CLEAR")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(edges), list(map(str, edges)))
    axes.set_xlabel("edge of a square picture in pixels")
    axes.grid(alpha=0.3)


def _draw_planned(axes: Axes, plan: Plan, full: float, clear: float) -> None:
    """Mark the planned picture, at the edge of the square with as many pixels."""
    edge = plan.job.layout.image**0.5 * plan.token_px
    axes.axvline(edge, color="gray", linewidth=1, label="the planned picture")
    axes.plot([edge], [full], "D", color=FULL, markersize=8)
    axes.plot([edge], [clear], "D", color=CLEAR, markersize=8)
