"""What ranks exchange tensors through: the same calls in the same order on every rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Expected(NamedTuple):
    """A tensor that another rank sends.

    Attributes:
        shape: Of it.
        dtype: Of it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of it."""
        return math.prod(self.shape) * self.dtype.itemsize


Sent = Mapping[int, Sequence[Tensor]]
"""Rank -> the tensors that it is sent."""

Awaited = Mapping[int, Sequence[Expected]]
"""Rank -> the tensors that it sends."""


class Pending(Protocol):
    """An exchange that has begun."""

    def wait(self) -> dict[int, list[Tensor]]:
        """Return what each rank has sent, on this rank's device.

        Raises:
            Aborted: Another rank has failed; its error is the cause.
        """
        ...


class Transport(Protocol):
    """A rank's way to the others.

    Attributes:
        rank: From 0 on.
        size: Number of ranks.
        received: Bytes that other ranks have sent so far.
        waited: Seconds spent in waiting for them.
    """

    rank: int
    size: int
    received: int
    waited: float

    def exchange(self, sent: Sent, awaited: Awaited) -> Pending:
        """Begin to send and to receive. Each rank calls this as often as every other.

        Args:
            sent: What other ranks receive; must not change until they have.
            awaited: What other ranks send at this place of the order.
        """
        ...

    def abort(self, error: BaseException) -> None:
        """Make every rank that waits, now or later, fail because of an error; the first one stays.

        Args:
            error: Of this rank.
        """
        ...


class Aborted(RuntimeError):
    """Another rank has failed: its error is the cause."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path
