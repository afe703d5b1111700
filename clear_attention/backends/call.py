"""What every backend receives, and what it offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..layout import TokenLayout
from ..masks import Mask
from ..partial import Part
from ..pooling import Pooling
from ..queries import Queries
from ..window import Window


@dataclass(frozen=True, eq=False)
class Call:
    """One checked attention call, without its tensors.

    Attributes:
        layout: Where the tokens lie.
        window: The disc.
        pooling: The pooled branch, or None.
        scale: Factor on the scores.
        mask: What is hidden on top, in the dtype of q, or None.
        trained: Whether gradients are wanted of q, k, v or the pooling weight.
        queries: Which tokens of the layout ask.
        groups: Query heads that share a key head. Where a backend computes, these are all heads of
            the tensors: see `groups.attend`.
    """

    layout: TokenLayout
    window: Window
    pooling: Pooling | None
    scale: float
    mask: Mask | None = None
    trained: bool = False
    queries: Queries = field(default_factory=Queries)  # torch.compile cannot trace an object here
    groups: int = 1


def wants_gradients(pooling: Pooling | None, *tensors: Tensor) -> bool:
    """Return whether gradients are wanted of any of these tensors or of the pooling weight."""
    weight = None if pooling is None else pooling.weight
    trained = tensors if weight is None else (*tensors, weight)
    return torch.is_grad_enabled() and any(x.requires_grad for x in trained)


def why_not_mask(call: Call) -> str | None:
    """Say why a backend that takes masks over shared keys only cannot take a call, or None."""
    if call.mask is None or call.mask.general is None:
        return None
    return "it takes no attention mask over pictures, but only one over text and extra keys"


@dataclass(frozen=True)
class About:
    """What users are told of a backend.

    Attributes:
        line: What it suits or needs, to go on behind its name: "runs everywhere".
        linear: Whether it is made for large pictures, which it computes in linear time.
        exact: Whether its result is that of the reference, to rounding.
    """

    line: str
    linear: bool
    exact: bool = True


@dataclass(frozen=True)
class Footprint:
    """What one call takes of a machine, for plans and for the host's memory management.

    Attributes:
        pairs: Query-key pairs of one head that set the time of the backend's own kernel.
        memory: Bytes at the peak beside q, k and v, the output and its log-sum-exp included.
        linear: Whether both grow with the tokens, not with their square (pooling apart).
        shared_pairs: Pairs of one head that the backend leaves to plain fused attention.
        tile: Rows and columns of the queries that are given the same keys, or None.
        token_major: Whether the output lies in memory as ``[B, L, H, D]``, which is how
            transformers go on; any other order costs them a copy of it.
    """

    pairs: int
    memory: int
    linear: bool
    shared_pairs: int = 0
    tile: tuple[int, int] | None = None
    token_major: bool = False


class Backend(Protocol):
    """A module that computes CLEAR attention."""

    @property
    def __name__(self) -> str: ...

    @property
    def ABOUT(self) -> About:
        """What users are told of it."""
        ...

    def why_not(self, q: Tensor, call: Call) -> str | None:
        """Say why this backend cannot take the call, or None."""
        ...

    def why_not_auto(self, q: Tensor, call: Call) -> str | None:
        """Say why another backend suits this call better, or None."""
        ...

    def footprint(self, q: Tensor, call: Call) -> Footprint:
        """Return what a call takes; of `q` only shape, dtype and device count."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
        """Compute ``[B, H, M, D]`` and the log-sum-exp ``[B, H, M]`` of the M queries.

        Keys and values are ``[B, H, L, D]``. With ``call.groups > 1`` their heads are one head in
        memory, and the H heads of q are one group.
        """
        ...
