"""Dense CLEAR attention in plain torch: the specification every backend is tested against.

Quadratic in time and memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..partial import Part
from ..precision import accumulation_dtype
from . import groups
from .call import About, Call, Footprint
from .sizes import output_bytes, shared_bytes

ABOUT = About("is slow and for checking", linear=False)


def why_not(q: Tensor, call: Call) -> str | None:
    return None


def why_not_auto(q: Tensor, call: Call) -> str | None:
    return "the reference is for checking, not for speed"


def footprint(q: Tensor, call: Call) -> Footprint:
    return groups.footprint(_footprint, q, call)


def _footprint(q: Tensor, call: Call) -> Footprint:
    layout, dtype = call.layout, accumulation_dtype(q.dtype)
    cells = call.pooling.cells(layout.height, layout.width) if call.pooling else 0
    pairs = q.shape[2] * (layout.tokens + cells)
    scores = q.shape[0] * q.shape[1] * pairs * dtype.itemsize
    # The scores beside the making of the mask (`Window.sees`), or twice: before and behind softmax.
    masking = scores + layout.tokens * (layout.tokens + cells) + layout.image**2 * 5 * 8
    memory = max(masking, 2 * scores + pairs + output_bytes(q)) + shared_bytes(q, call)
    return Footprint(pairs, memory, linear=False)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    keys, values = with_pooled(k, v, call)
    dtype = accumulation_dtype(q.dtype)
    scores_BHLN = q.to(dtype) @ keys.to(dtype).transpose(-1, -2) * call.scale
    scores_BHLN = scores_BHLN.masked_fill(~visible(call, q.device), -torch.inf)
    if call.mask is not None:
        scores_BHLN = scores_BHLN + with_pooled_bias(call.mask.dense(), call)
    lse = torch.logsumexp(scores_BHLN, -1)
    out = torch.softmax(scores_BHLN, -1) @ values.to(dtype)
    return Part(out.to(q.dtype), lse)


def with_pooled(k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Append the pooled keys and values, ``[B, H, L + cells, D]``."""
    if call.pooling is None:
        return k, v
    layout = call.layout
    pooled_k, pooled_v = (
        call.pooling.pool(x[:, :, layout.image_slice], layout.height, layout.width) for x in (k, v)
    )
    return torch.cat((k, pooled_k), 2), torch.cat((v, pooled_v), 2)


def with_pooled_bias(mask: Tensor, call: Call) -> Tensor:
    """Append the columns of the pooled keys, ``[B or 1, H or 1, M, L + cells]``."""
    if call.pooling is None:
        return mask
    layout = call.layout
    grid = mask[..., layout.image_slice]
    return torch.cat((mask, call.pooling.pool_bias(grid, layout.height, layout.width)), -1)


def visible(call: Call, device: torch.device) -> Tensor:
    """Return who sees whom, ``[queries, L + cells]``, True where seen."""
    layout = call.layout
    cells = call.pooling.cells(layout.height, layout.width) if call.pooling else 0
    sees = torch.ones(layout.tokens, layout.tokens + cells, dtype=torch.bool, device=device)
    sees[:, layout.tokens :] = False
    sees[layout.image_slice, layout.tokens :] = True
    sees[layout.image_slice, layout.image_slice] = call.window.mask(
        layout.height, layout.width, device
    )
    return call.queries.of(sees, layout, dim=0)
