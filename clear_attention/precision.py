"""Which dtype to compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast does not round the operands of products."""
    if not torch.amp.autocast_mode.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
