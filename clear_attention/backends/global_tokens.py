"""Global tokens (text and extra): they attend to all tokens, and all tokens attend to them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..partial import Part, attend_part
from ..precision import accumulation_dtype
from .call import Call


def shared_keys(tokens: Tensor, call: Call) -> Tensor:
    """Return the keys or values that all image queries see, ``[B, H, text + extra + cells, D]``.

    Text alone is a view.
    """
    layout = call.layout
    if call.pooling is None and not layout.extra:
        return tokens[:, :, layout.text_slice]
    shared = [tokens[:, :, layout.text_slice], tokens[:, :, layout.extra_slice]]
    if call.pooling is not None:
        grid = tokens[:, :, layout.image_slice]
        shared.append(call.pooling.pool(grid, layout.height, layout.width))
    return torch.cat(shared, 2)


def attend_everywhere(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Part, Part]:
    """Compute the rows of the text and of the extra queries, which see every token."""
    text, extra = call.layout.text_slice, call.layout.extra_slice
    return _rows(q, k, v, call, text), _rows(q, k, v, call, extra)


def _rows(q: Tensor, k: Tensor, v: Tensor, call: Call, rows: slice) -> Part:
    queries = q[:, :, rows]
    if queries.shape[2] == 0:
        dtype = accumulation_dtype(q.dtype)
        return Part(queries, queries.new_zeros(queries.shape[:3], dtype=dtype))
    bias = None if call.mask is None else call.mask[:, :, rows]
    return attend_part(queries, k, v, scale=call.scale, bias=bias)
