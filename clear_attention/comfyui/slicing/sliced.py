"""Sliced: how blocks of one kind are computed slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

BlockArgs = dict[str, Any]
"""What the host gives to a block's replacement."""


@dataclass(frozen=True)
class Sliced:
    """How blocks of one kind are computed in slices.

    Attributes:
        why_not: Says why a block must be left to the host, or None.
        compute: The block, its arguments and the tokens of a slice, to its result.
    """

    why_not: Callable[[nn.Module, BlockArgs], str | None]
    compute: Callable[[Any, BlockArgs, int], BlockArgs]
