"""Merge attention over the keys of all ranks, in their order: the same bits everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..partial import Part, merge_parts


def merge_all(parts: Sequence[Part]) -> Part:
    """Merge attention over disjoint key sets into attention over their union.

    The output is rounded to the dtype of the parts once, at the end.

    Args:
        parts: In the order of ranks; ``out [B, H, M, D]`` and ``lse [B, H, M]`` each.
    """
    dtype = parts[0].out.dtype
    merged = reduce(merge_parts, [Part(part.out.to(part.lse.dtype), part.lse) for part in parts])
    return merged._replace(out=merged.out.to(dtype))
