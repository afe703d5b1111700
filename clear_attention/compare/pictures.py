"""Distances between finished pictures, and what is wrong with one that cannot be compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
"""As Wang et al. have them (IEEE TIP 2004, section III.C)."""

DARK = 2 / 255
"""Brightest value of a picture that counts as black: a VAE's rounding may leave some."""


def psnr(squared: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared difference in peaks squared."""
    return -10 * math.log10(squared) if squared > 0 else math.inf


def ssim(a: Tensor, b: Tensor, peak: float = 1.0) -> Tensor:
    """Return the structural similarity of two pictures: 1 for equal ones, about 0 for unrelated.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004),
    equation 13: Gaussian windows of 11 x 11 with a standard deviation of 1.5, those that lie wholly
    inside, population moments; the mean over windows and channels.

    Args:
        a: ``[B, C, H, W]``. On a side of fewer than 11 the window has the largest odd size that
            fits.
        b: Of the same shape.
        peak: Range of the values.

    Returns:
        ``[B]``, float32.
    """
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"a and b must be [B, C, H, W] of one shape, got {list(a.shape)} and {list(b.shape)}."
        )
    a, b = a.double(), b.to(a.device).double()  # variances are differences of large squares
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    likeness = likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return likeness.flatten(1).mean(1).float()


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - the cosine of embeddings: ``[B, D] -> [B]``, 0 for one direction."""
    return 1 - functional.cosine_similarity(a.double(), b.to(a.device).double(), dim=-1).float()


def fault_of(picture: Tensor, *, is_latent: bool = False) -> str:
    """Say what is wrong with a picture, empty if nothing is.

    Args:
        picture: Of any shape; values from 0 to 1 unless it is a latent.
        is_latent: Whether it is one, which cannot be told to be black.
    """
    if not picture.isfinite().all():
        return "not a number"
    if is_latent:
        return "" if picture.any() else "empty"
    return "black" if float(picture.max()) <= DARK else ""


def _blur(x: Tensor) -> Tensor:
    """Return the weighted means of all windows that lie inside: ``[B, C, H', W']``."""
    rows, columns = (_gaussian(side).to(x) for side in x.shape[-2:])
    flat = x.flatten(0, 1).unsqueeze(1)  # [B C, 1, H, W]
    flat = functional.conv2d(flat, rows[None, None, :, None])
    flat = functional.conv2d(flat, columns[None, None, None, :])
    return flat.reshape(*x.shape[:2], *flat.shape[-2:])


def _gaussian(side: int) -> Tensor:
    size = WINDOW if side >= WINDOW else side - 1 + side % 2
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(at**2) / (2 * SIGMA**2))
    return weights / weights.sum()
