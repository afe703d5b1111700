"""Heads whose attention is made up, for what people read of a measurement."""

from __future__ import annotations

import torch

from clear_attention.locality.measure import Locality


def locality(*heads: int, seen_by_all: float = 0.2, grid: int = 12) -> Locality:
    """Return heads that put the rest of their mass on the radius given for each.

    Args:
        heads: Radius of each.
        seen_by_all: Mass on tokens that no window hides.
        grid: Smallest radius that covers the grid.
    """
    first_seen = torch.zeros(len(heads), grid)
    for head, radius in enumerate(heads):
        first_seen[head, radius - 1] = 1 - seen_by_all
    return Locality(torch.full((len(heads),), seen_by_all), first_seen)


BLOCKS = {"double 0": locality(3, 11), "double 1": locality(2, 4), "single 0": locality(6, 6)}
