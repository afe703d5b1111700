"""Global tokens (text and extra): they attend to all tokens, and all tokens attend to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..partial import Part, attend_part
from ..precision import accumulation_dtype
from .call import Call
from .groups import once_per_group


def shared_keys(tokens: Tensor, call: Call) -> Tensor:
    """Return the keys or values that all image queries see: text, extra, then the pooled ones.

    ``[B, H, text + extra + cells, D]``, without those that a mask hides from all of them. Text
    alone is a view.
    """
    return once_per_group(call, lambda tokens: _shared_keys(tokens, call), tokens)


def shared_bias(call: Call) -> Tensor | None:
    """Return what is added to the scores of the shared keys, ``[B or 1, H or 1, 1, keys]``."""
    if call.mask is None or call.mask.bias is None:
        return None
    if call.pooling is None:
        return call.mask.bias
    return F.pad(call.mask.bias, (0, call.pooling.cells(call.layout.height, call.layout.width)))


def attend_everywhere(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Part, Part]:
    """Compute the rows of the text and of the extra queries, which see every token."""
    text, extra = call.queries.text_slice(call.layout), call.queries.extra_slice(call.layout)
    return _rows(q, k, v, call, text, True), _rows(q, k, v, call, extra, False)


def _shared_keys(tokens: Tensor, call: Call) -> Tensor:
    layout = call.layout
    shared = [tokens[:, :, layout.text_slice], tokens[:, :, layout.extra_slice]]
    if call.mask is not None and call.mask.kept is not None:
        kept = call.mask.kept
        behind_the_grid = (kept >= layout.text).to(kept.dtype)
        shared = [tokens.index_select(2, kept + layout.image * behind_the_grid)]
    elif not layout.extra:
        shared.pop()
    if call.pooling is not None:
        grid = tokens[:, :, layout.image_slice]
        shared.append(call.pooling.pool(grid, layout.height, layout.width))
    return shared[0] if len(shared) == 1 else torch.cat(shared, 2)


def _rows(q: Tensor, k: Tensor, v: Tensor, call: Call, rows: slice, text: bool) -> Part:
    queries = q[:, :, rows]
    if queries.shape[2] == 0:
        dtype = accumulation_dtype(q.dtype)
        return Part(queries, queries.new_zeros(queries.shape[:3], dtype=dtype))
    bias = None if call.mask is None else call.mask.rows(text)
    return attend_part(queries, k, v, scale=call.scale, bias=bias)
