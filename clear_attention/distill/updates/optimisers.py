"""The optimisers of a run, and the pace of their steps."""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..config import Optimiser


def make_optimiser(parameters: list[Tensor], settings: Optimiser) -> Optimizer:
    """Make the optimiser.

    Raises:
        ImportError: Prodigy is asked for and not installed.
    """
    rate, betas, decay = settings.rate, settings.betas, settings.weight_decay
    if settings.name == "adamw":
        return AdamW(parameters, lr=rate, betas=betas, weight_decay=decay)
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise ImportError(
            "The optimiser Prodigy needs prodigyopt: python -m pip install prodigyopt"
        ) from error
    return Prodigy(
        parameters,
        lr=rate,
        betas=betas,
        weight_decay=decay,  # pyright: ignore[reportArgumentType] - annotated as an integer
        use_bias_correction=True,
        safeguard_warmup=True,
    )


def make_schedule(optimiser: Optimizer, settings: Optimiser, steps: int) -> LambdaLR:
    """Make the schedule of an optimiser's step size over a run.

    Args:
        optimiser: The optimiser.
        settings: Its warm-up and decay.
        steps: Length of the run in updates.
    """
    return LambdaLR(optimiser, lambda step: _pace(step, steps, settings))


def rate_of(optimiser: Optimizer) -> float:
    """Return the step size in use; Prodigy finds a factor of its own."""
    group = optimiser.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


def _pace(step: int, steps: int, settings: Optimiser) -> float:
    """Return the factor on the step size."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    left = settings.cosine_to
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return left + (1 - left) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
