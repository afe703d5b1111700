"""Modules of the host behind what other nodes wrap around them."""

from __future__ import annotations

from torch import nn


def plain_module(module: nn.Module) -> nn.Module:
    """Return the module that torch.compile has wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)
