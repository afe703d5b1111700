"""The softmax scale for sequences longer than the trained ones."""

from __future__ import annotations

import math


def proportional_scale(
    tokens: int, head_dim: int, trained_tokens: int = 4608, pooled: bool = False
) -> float:
    """Return the softmax scale that keeps the entropy of longer sequences near the trained one.

    sqrt(log(n) / log(trained_tokens) / head_dim) as in the CLEAR code, with n = tokens. Its pooled
    variant takes n = 10 * tokens; we match that. Below `trained_tokens` the scale is *smaller* than
    head_dim ** -0.5.

    Args:
        tokens: Text and image tokens of the sequence, without pooled ones.
        head_dim: Width of one head.
        trained_tokens: Sequence length at which the scale is head_dim ** -0.5.
        pooled: Whether the pooled branch is on.
    """
    length = 10 * tokens if pooled else tokens
    return math.sqrt(math.log(length) / math.log(trained_tokens) / head_dim)
