"""One attention call of the host, in one form for all host versions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HostCall:
    """The arguments of one host attention call.

    Attributes:
        q: ``[B, H, M, D]``.
        k: ``[B, Hkv, L, D]``, Hkv a divisor of H, M at most L where keys come from a cache.
        v: Likewise.
        mask: ``[B or 1, H or 1, M, L]``, additive or boolean, or None.
        scale: Factor on the scores, None for the default.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: float | None

    @property
    def fits(self) -> bool:
        """Whether queries, keys and values differ in nothing but tokens and grouped heads."""
        (batch, heads, _, depth), k = self.q.shape, self.k.shape
        return k == self.v.shape and (k[0], k[3]) == (batch, depth) and not heads % k[1]


def read_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    *,
    scale: float | None = None,
    **_: object,
) -> HostCall:
    """Read the arguments that a host gives to an override."""

    def split(x: Tensor) -> Tensor:
        if skip_reshape:
            return x
        # Fewer heads of keys are as wide as those of the queries.
        own = heads if x is q or x.ndim > 3 else x.shape[-1] * heads // q.shape[-1]
        return x.reshape(*x.shape[:2], own, -1).transpose(1, 2)

    return HostCall(split(q), split(k), split(v), _four_dimensional(mask), scale)


def _four_dimensional(mask: Tensor | None) -> Tensor | None:
    """Return ``[B or 1, H or 1, M, L]``: the host's 3-D masks are per batch, not per head."""
    if mask is None:
        return None
    if mask.ndim == 3:
        return mask.unsqueeze(1)
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
