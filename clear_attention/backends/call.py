"""What every backend receives, and what it offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..layout import TokenLayout
from ..partial import Part
from ..pooling import Pooling
from ..window import Window


@dataclass(frozen=True, eq=False)
class Call:
    """One checked attention call, without its tensors.

    Attributes:
        layout: Where the tokens lie.
        window: The disc.
        pooling: The pooled branch, or None.
        scale: Factor on the scores.
        mask: ``[B or 1, H or 1, L, L]`` added to the scores, or None.
    """

    layout: TokenLayout
    window: Window
    pooling: Pooling | None
    scale: float
    mask: Tensor | None = None


class Backend(Protocol):
    """A module that computes CLEAR attention."""

    @property
    def __name__(self) -> str: ...

    def why_not(self, q: Tensor, call: Call) -> str | None:
        """Say why this backend cannot take the call, or None."""
        ...

    def why_not_auto(self, q: Tensor, call: Call) -> str | None:
        """Say why another backend suits this call better, or None."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
        """Compute ``[B, H, L, D]`` and the log-sum-exp ``[B, H, L]``."""
        ...
