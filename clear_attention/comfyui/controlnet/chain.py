"""The residuals of a chain of ControlNets: a sum for each block."""

from __future__ import annotations

from itertools import zip_longest

from torch import Tensor

from ..core.calls.shared_nets import Residuals, SharedResiduals
from .reuse import Control


def added(own: Control | None, previous: Control | None) -> Control | None:
    """Add the residuals of two nets; neither is changed.

    A tensor that occurs for many blocks, as InstantX's do, is added once and occurs as often.
    """
    if own is None or previous is None:
        return own or previous
    if isinstance(own, SharedResiduals) and isinstance(previous, SharedResiduals):
        pairs = zip(own.parts, previous.parts, strict=True)
        return SharedResiduals(own.partition, [_sum(*pair) for pair in pairs])
    return _sum(own, previous)


def _sum(own: Residuals, previous: Residuals) -> dict[str, list[Tensor | None]]:
    sums: dict[tuple[int, int], Tensor] = {}

    def total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None or b is None:
            return b if a is None else a
        pair = id(a), id(b)
        if pair not in sums:
            sums[pair] = b + a
        return sums[pair]

    return {
        name: [total(*pair) for pair in zip_longest(own.get(name, ()), previous.get(name, ()))]
        for name in {**own, **previous}
    }
