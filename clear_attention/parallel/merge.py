"""Merge attention over the keys of all ranks, in their order: the same bits everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..partial import Part, merge_parts


def merge_all(parts: Sequence[Part]) -> Part:
    """Merge attention over disjoint key sets into attention over their union.

    Args:
        parts: In the order of ranks; ``out [B, H, M, D]`` and ``lse [B, H, M]`` each.
    """
    return reduce(merge_parts, parts)
