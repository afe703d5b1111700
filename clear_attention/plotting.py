"""Figures as pictures; the one place that wants matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 110


def new_figure(width: float, height: float, what: str) -> Figure:
    """Make an empty figure.

    Args:
        width: In inches of 110 pixels.
        height: In inches.
        what: What it will show, for the error.

    Raises:
        ModuleNotFoundError: Matplotlib is missing; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{what} needs matplotlib, which is not installed. Run `pip install matplotlib` with "
            "the Python that runs ComfyUI, and start it again."
        ) from error
    # Without pyplot: matplotlib's global state, which other nodes may use, stays as it is.
    return Figure((width, height), PIXELS_PER_INCH, layout="constrained")


def pixels_of(figure: Figure) -> Tensor:
    """Paint a figure: ``[height_px, width_px, 3]``, float32 from 0 to 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width_px, height_px = canvas.get_width_height()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return pixels.reshape(height_px, width_px, 4)[..., :3].float() / 255
