"""Numbers that are spread evenly over 0 to 1, however many are taken."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = (5**0.5 - 1) / 2
"""The fractions of its multiples spread evenly, and so do those of every n-th multiple."""


def spread(first: int, count: int, start: float = 0.0) -> Tensor:
    """Return numbers from a sequence without end, ``[count]`` float64 in [0, 1).

    Args:
        first: Number in the sequence of the first one.
        count: How many.
        start: Where the sequence begins.
    """
    return (start + GOLDEN * torch.arange(first, first + count, dtype=torch.float64)) % 1
