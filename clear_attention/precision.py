"""Which dtype to compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

# Found out here once: torch.compile cannot trace the question.
AUTOCAST_DEVICES = [
    device
    for device in ("cpu", "cuda", "mps", "xpu")
    if torch.amp.autocast_mode.is_autocast_available(device)
]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast does not round the operands of products."""
    if device.type not in AUTOCAST_DEVICES:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
