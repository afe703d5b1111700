"""Sizes of what footprints have in common: outputs, shared keys, pairs of whole windows."""

from __future__ import annotations

from torch import Tensor

from ..pairs import visible_pairs
from ..precision import accumulation_dtype
from .call import Call


def hidden_bytes(q: Tensor, tokens: int | None = None) -> int:
    """Return the bytes of a tensor as wide as the queries, over all tokens or over so many."""
    batch, heads, length, depth = q.shape
    return batch * heads * (length if tokens is None else tokens) * depth * q.dtype.itemsize


def output_bytes(q: Tensor) -> int:
    """Return the bytes of the output and its log-sum-exp."""
    batch, heads, tokens, _ = q.shape
    return hidden_bytes(q) + batch * heads * tokens * accumulation_dtype(q.dtype).itemsize


def shared_bytes(q: Tensor, call: Call) -> int:
    """Return the bytes of the shared keys and values; those of the text alone are views."""
    layout, pooling = call.layout, call.pooling
    cells = pooling.cells(layout.height, layout.width) if pooling else 0
    copied = cells + layout.text + layout.extra if cells or layout.extra else 0
    return 2 * hidden_bytes(q, copied)


def window_pairs(call: Call) -> int:
    """Count the pairs of windows that no border cuts: tiles there cost as much as inside."""
    layout = call.layout
    return layout.image * min(call.window.tokens, layout.image)


def shared_pairs(call: Call) -> int:
    """Count the pairs of which one side is text, extra or pooled."""
    layout, window = call.layout, call.window
    exact = visible_pairs(layout, window, call.pooling)
    return exact - window.pairs(layout.height, layout.width)
