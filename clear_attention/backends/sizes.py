"""Sizes of what footprints have in common: outputs, shared keys, pairs of whole windows."""

from __future__ import annotations

from torch import Tensor

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


def shared_tokens(call: Call) -> int:
    """Count the keys that every image query sees: text, extra, pooled."""
    layout, pooling, mask = call.layout, call.pooling, call.mask
    cells = pooling.cells(layout.height, layout.width) if pooling else 0
    return cells + (layout.text + layout.extra if mask is None else mask.shared)


def shared_bytes(q: Tensor, call: Call) -> int:
    """Return the bytes of the shared keys and values; those of the text alone are views."""
    is_view = not call.layout.extra and call.pooling is None
    if is_view and (call.mask is None or call.mask.kept is None):
        return 0
    return 2 * hidden_bytes(q, shared_tokens(call)) // call.groups


def image_queries(call: Call) -> int:
    """Count the image queries."""
    return call.queries.image(call.layout)


def window_pairs(call: Call) -> int:
    """Count the pairs of windows that no border cuts: tiles there cost as much as inside."""
    return image_queries(call) * min(call.window.tokens, call.layout.image)


def shared_pairs(call: Call) -> int:
    """Count the pairs of which one side is text, extra or pooled."""
    everywhere = call.queries.others(call.layout) * call.layout.tokens
    return everywhere + image_queries(call) * shared_tokens(call)
