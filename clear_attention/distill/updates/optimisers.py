"""The optimisers of a run, and the pace of their steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..config import Optimiser

TABLES, SCALES = {"qmap1", "qmap2"}, {"absmax1", "absmax2"}
"""What 8-bit AdamW remembers beside its bytes: the numbers they stand for, and scales of blocks."""
QUANTISED = TABLES | SCALES
SCALED_TOGETHER = 256
"""Numbers of a block."""


def make_optimiser(parameters: list[Tensor], settings: Optimiser) -> Optimizer:
    """Make the optimiser.

    Raises:
        ImportError: The optimiser's package is not installed.
    """
    rate, betas, decay = settings.rate, settings.betas, settings.weight_decay
    if settings.name == "adamw":
        return AdamW(parameters, lr=rate, betas=betas, weight_decay=decay)
    if settings.name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "The optimiser adamw8bit needs bitsandbytes: python -m pip install bitsandbytes"
            ) from error
        return AdamW8bit(parameters, lr=rate, betas=betas, weight_decay=decay)
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


def is_memory(memory: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, Tensor]) -> bool:
    """Return whether entries can be an optimiser's memory of parameters: all have the same ones.

    Of 8-bit AdamW, those of small parameters lack what quantises the others.

    Args:
        memory: Tensors and numbers by parameter name and entry.
        parameters: By name.
    """
    plain = {frozenset(entries) - QUANTISED for entries in memory.values()}
    return len(plain) == 1 and all(
        _has_its_tables(entries)
        and all(
            not isinstance(value, Tensor) or value.numel() in _lengths(entry, parameters[name])
            for entry, value in entries.items()
        )
        for name, entries in memory.items()
    )


def _has_its_tables(entries: Mapping[str, Any]) -> bool:
    of_8_bits = getattr(entries.get("state1"), "dtype", None) == torch.uint8
    return entries.keys() & QUANTISED == (QUANTISED if of_8_bits else set())


def _lengths(entry: str, parameter: Tensor) -> tuple[int, ...]:
    """Return how many numbers an entry may have."""
    if entry in TABLES:
        return (256,)
    if entry in SCALES:
        return (-(-parameter.numel() // SCALED_TOGETHER),)
    return 1, parameter.numel()


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
