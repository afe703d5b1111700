"""The running average of what is trained (EMA): it follows each update, and is the result."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def follow(
    average: Mapping[str, Tensor], parameters: Mapping[str, Tensor], step: int, decay: float
) -> None:
    """Move averages towards their parameters; early on faster, to forget the start.

    Args:
        average: Changed in place; empty without an average.
        parameters: What it follows, by the same names.
        step: Updates done.
        decay: Share of the average that is kept in the long run.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, mean in average.items():
        mean.lerp_(parameters[name].detach(), 1 - decay)


@contextmanager
def in_place(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Generator[None]:
    """Let parameters have their averages' values for the length of the ``with``."""
    _swap(average, parameters)
    try:
        yield
    finally:
        _swap(average, parameters)


@torch.no_grad()
def _swap(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    for name, mean in average.items():
        kept = parameters[name].detach().clone()
        parameters[name].copy_(mean)
        mean.copy_(kept)
