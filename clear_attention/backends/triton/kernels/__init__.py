"""The kernels by name: one tile of tokens against all that it visits."""

from __future__ import annotations

from .attend import forward, round_rows
from .gradients import backward_keys, backward_queries

__all__ = ["backward_keys", "backward_queries", "forward", "round_rows"]
