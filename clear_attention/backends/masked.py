"""One fused attention call per band of rows, with a mask: the fastest way on small grids.

A band of queries is given the rows that its windows reach, so that the mask stays small and the
work grows with height * width * width * radius. It is the only fast backend that takes a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..partial import Part, aligned_zeros, attend_part
from .axis import pieces
from .call import Call
from .global_tokens import attend_everywhere, shared_keys

# Elements of one band's mask: 2**22 float32 values are 16 MiB.
MASK_ELEMENTS = 2**22


def why_not(q: Tensor, call: Call) -> str | None:
    return None


def why_not_auto(q: Tensor, call: Call) -> str | None:
    if call.mask is not None:
        return None
    layout, window = call.layout, call.window
    keys = min(layout.height, _band_rows(call) + 2 * window.reach) * layout.width
    # Measured on CPU for radius 4 to 32: tiles win once a band has more keys than a tile's window.
    if keys <= (2 * window.radius + 4) ** 2:
        return None
    return f"on {layout.height} x {layout.width} tokens tiles compute fewer pairs"


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    layout = call.layout
    if (
        call.mask is None
        and call.pooling is None
        and call.window.covers(layout.height, layout.width)
    ):
        return attend_part(q, k, v, scale=call.scale)
    text, extra = attend_everywhere(q, k, v, call)
    shared = shared_keys(k, call), shared_keys(v, call)
    step = _band_rows(call)
    bands = [
        _band(q, k, v, shared, call, top, min(layout.height, top + step))
        for top in range(0, layout.height, step)
    ]
    parts = [text, *bands, extra]
    return Part(
        torch.cat([part.out for part in parts], 2), torch.cat([part.lse for part in parts], 2)
    )


def _band_rows(call: Call) -> int:
    """Return how many rows of queries share one call."""
    layout = call.layout
    whole = layout.image * layout.width
    return max(1, min(layout.height, MASK_ELEMENTS // max(1, whole)))


def _band(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shared: tuple[Tensor, Tensor],
    call: Call,
    top: int,
    bottom: int,
) -> Part:
    queries, keys = _grid_rows(call, slice(top, bottom)), _reached(call, top, bottom)
    return attend_part(
        q[:, :, queries],
        torch.cat((shared[0], *(k[:, :, rows] for rows in keys)), 2),
        torch.cat((shared[1], *(v[:, :, rows] for rows in keys)), 2),
        scale=call.scale,
        bias=_bias(call, queries, keys, shared[0].shape[2], q),
    )


def _reached(call: Call, top: int, bottom: int) -> list[slice]:
    """Return the positions of the rows that a band's windows reach: each row once."""
    height, window = call.layout.height, call.window
    first, last = top - window.reach, bottom + window.reach
    if window.wrap_height and last - first >= height:
        first, last = 0, height
    rows = pieces(first, last, height, window.wrap_height)
    return [_grid_rows(call, piece.places) for piece in rows]


def _grid_rows(call: Call, rows: slice) -> slice:
    """Return the positions of rows in the joint sequence."""
    start, width = call.layout.text, call.layout.width
    return slice(start + rows.start * width, start + rows.stop * width)


def _bias(call: Call, queries: slice, keys: list[slice], shared: int, like: Tensor) -> Tensor:
    """Return the band's mask as a bias, ``[1 or B, 1 or H, queries, shared + keys]``."""
    layout = call.layout
    query, key = (
        torch.cat([torch.arange(rows.start, rows.stop, device=like.device) for rows in side])
        - layout.text
        for side in ([queries], keys)
    )
    sees = call.window.sees_in(
        layout.height,
        layout.width,
        (query // layout.width)[:, None] - key // layout.width,
        (query % layout.width)[:, None] - key % layout.width,
    )
    bias = aligned_zeros((1, 1, len(query), shared + len(key)), like)
    bias[..., shared:].masked_fill_(~sees, -torch.inf)
    if call.mask is None:
        return bias
    return bias + _shared_and_keys(call.mask[:, :, queries], call, keys)


def _shared_and_keys(mask: Tensor, call: Call, keys: list[slice]) -> Tensor:
    """Reorder the columns of a mask as the band's keys lie: text, extra, pooled, grid rows."""
    layout = call.layout
    columns = [mask[..., layout.text_slice], mask[..., layout.extra_slice]]
    if call.pooling is not None:
        grid = mask[..., layout.image_slice]
        columns.append(call.pooling.pool_bias(grid, layout.height, layout.width))
    return torch.cat([*columns, *(mask[..., rows] for rows in keys)], -1)
