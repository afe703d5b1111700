"""The velocity error: the mean squared difference of what two models predict for one input."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = (0.9, 0.7, 0.5, 0.3)
"""Noise levels at which velocities are compared, from composition to detail."""


def velocity(noisy: Tensor, denoised: Tensor, level: float) -> Tensor:
    """Return the velocity that belongs to a prediction of the clean picture.

    Of a flow-matching model it is the output itself, as its clean picture is
    ``noisy - level x output``. Of others it is the same quantity on the same path, so that their
    errors have the same scale: the difference of the clean pictures over the noise level.

    Args:
        noisy: On the straight path from picture to noise, ``level x noise + (1 - level) x clean``.
        denoised: The clean picture that it predicts.
        level: The noise level, above 0.
    """
    return (noisy - denoised) / level


def power(x: Tensor) -> Tensor:
    """Return the mean square of each entry of a batch: ``[B, ...] -> [B]``, float32."""
    return x.float().square().flatten(1).mean(1)


def squared_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of each entry of a batch: ``[B, ...] -> [B]``, float32."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must be of one shape, got {list(a.shape)} and {list(b.shape)}.")
    return power(a.float() - b.to(a.device, torch.float32))
