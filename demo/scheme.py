"""A thumbnail for a workflow that the demo's model cannot run: the window, drawn over its grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clear_attention.atomic_files import written_whole
from clear_attention.plotting import new_figure
from clear_attention.window import Window

TOKENS = 32
"""Tokens on a side of what is drawn, a quarter of 2048 pixels."""
RADIUS = 8
AT = (14, 18)
BACKGROUND, UNSEEN, SEEN, LOOKS = "#12151c", "#2a3140", "#f2c14e", "#ffffff"


def draw_scheme(title: str, target: Path, edge_px: int) -> None:
    """Draw what one token of a large picture sees, under the name of a model.

    Args:
        title: Of the workflow, such as ``Z-Image at 2048 pixels``.
        target: A JPEG, written as a whole or not at all.
        edge_px: Of the thumbnail.
    """
    figure = new_figure(edge_px / 110, edge_px / 110, "A thumbnail")
    figure.set_layout_engine("none")
    figure.set_facecolor(BACKGROUND)
    axes = figure.add_axes((0.1, 0.02, 0.8, 0.8))
    axes.set_axis_off()
    axes.set_aspect("equal")
    rows, columns = np.mgrid[:TOKENS, :TOKENS]
    near = Window(RADIUS).sees(torch.tensor(rows) - AT[0], torch.tensor(columns) - AT[1])
    colours = np.where(near.numpy().ravel(), SEEN, UNSEEN)
    colours[AT[0] * TOKENS + AT[1]] = LOOKS
    axes.scatter(columns.ravel(), -rows.ravel(), s=50, c=colours, marker="s", linewidths=0)
    name, _, size = title.partition(" at ")
    figure.text(0.12, 0.915, name, color=LOOKS, fontsize=21, weight="bold")
    figure.text(0.12, 0.855, f"{size}, without training", color=SEEN, fontsize=12)
    with written_whole(target) as part:
        figure.savefig(part, format="jpeg", dpi=110, facecolor=BACKGROUND)
