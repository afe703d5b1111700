"""One fused attention call per band of rows, with a mask: the fastest way on small grids.

A band of queries is given the rows that its windows reach, so that the mask stays small and the
work grows with height * width * width * radius. It is the only fast backend that takes a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..partial import Part, aligned_zeros, attend_part
from .axis import pieces
from .call import About, Call, Footprint
from .global_tokens import attend_everywhere, shared_keys
from .sizes import hidden_bytes, output_bytes, shared_bytes

# Elements of one band's mask: 2**22 float32 values are 16 MiB.
MASK_ELEMENTS = 2**22

# While a band's mask is made, five int64 tensors of its shape exist at once (`Window.sees`).
_MASK_BYTES = 5 * 8


ABOUT = About("suits small pictures and regional masks", linear=False)


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


def footprint(q: Tensor, call: Call) -> Footprint:
    layout, heads = call.layout, q.shape[0] * q.shape[1]
    if _is_plain(call):
        return Footprint(layout.tokens**2, output_bytes(q), linear=False)
    shared = _shared_tokens(call)
    pairs, peak = (layout.text + layout.extra) * layout.tokens, 0
    for top, bottom in _bands(call):
        queries = (bottom - top) * layout.width
        reached = sum(rows.stop - rows.start for rows in _reached(call, top, bottom))
        pairs += queries * (shared + reached)
        held = layout.text + top * layout.width + 2 * (shared + reached)
        peak = max(peak, hidden_bytes(q, held) + queries * reached * _MASK_BYTES)
    # Bands and the whole that is made of them lie side by side at the end.
    memory = max(peak + 4 * heads * layout.tokens, 2 * output_bytes(q)) + shared_bytes(q, call)
    return Footprint(pairs, memory, linear=False)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    if _is_plain(call):
        return attend_part(q, k, v, scale=call.scale)
    text, extra = attend_everywhere(q, k, v, call)
    shared = shared_keys(k, call), shared_keys(v, call)
    bands = [_band(q, k, v, shared, call, top, bottom) for top, bottom in _bands(call)]
    parts = [text, *bands, extra]
    return Part(
        torch.cat([part.out for part in parts], 2), torch.cat([part.lse for part in parts], 2)
    )


def _is_plain(call: Call) -> bool:
    """Tell whether every token sees every other, so that there is nothing to mask."""
    covers = call.window.covers(call.layout.height, call.layout.width)
    return covers and call.mask is None and call.pooling is None


def _bands(call: Call) -> list[tuple[int, int]]:
    """Return the first row of each band and the row behind its last."""
    height, step = call.layout.height, _band_rows(call)
    return [(top, min(height, top + step)) for top in range(0, height, step)]


def _shared_tokens(call: Call) -> int:
    """Count the keys that every image query sees."""
    layout, pooling = call.layout, call.pooling
    cells = pooling.cells(layout.height, layout.width) if pooling else 0
    return layout.text + layout.extra + cells


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
