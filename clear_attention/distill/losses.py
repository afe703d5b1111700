"""The losses of CLEAR's distillation as pure functions (arXiv 2412.16112)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..families.names import Block


def mix(latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return a noisy latent of the rectified flow, (1 - sigma) latent + sigma noise.

    Args:
        latent: ``[B, C, H, W]``.
        noise: Of the same shape.
        sigma: ``[B]``, 0 is clean, 1 is noise.
    """
    sigma = sigma.view(-1, *[1] * (latent.ndim - 1))
    return (1 - sigma) * latent + sigma * noise


def flow_matching(velocity: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error against the flow's velocity, noise - latent."""
    return F.mse_loss(velocity.float(), (noise - latent).float())


def prediction(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the two velocities."""
    return F.mse_loss(student.float(), teacher.float())


def attention(student: Mapping[Block, Tensor], teacher: Mapping[Block, Tensor]) -> Tensor:
    """Return the mean over blocks of the mean squared difference of their attention outputs.

    Args:
        student: ``[B, L, H D]`` before the output projection, by block.
        teacher: The same of the teacher.

    Raises:
        ValueError: The two are not of the same blocks.
    """
    if student.keys() != teacher.keys() or not student:
        raise ValueError(
            "Attention outputs must be of the same blocks, "
            f"got {sorted(student)} of the student and {sorted(teacher)} of the teacher."
        )
    pairs = [F.mse_loss(student[block].float(), teacher[block].float()) for block in student]
    return torch.stack(pairs).mean()
