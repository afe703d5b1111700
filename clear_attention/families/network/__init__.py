"""A model's dimensions as the planner takes them, one maker for each way of writing them down."""

from __future__ import annotations

from .description import Attends, Attention, Blocks, Job, Live, Network
from .flux import flux
from .sd3 import sd3
from .transformer import BlockSizes, Held, transformer

__all__ = [
    "Attends",
    "Attention",
    "BlockSizes",
    "Blocks",
    "Held",
    "Job",
    "Live",
    "Network",
    "flux",
    "sd3",
    "transformer",
]
