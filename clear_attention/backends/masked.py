"""One fused attention call per band of rows, with a mask: the fastest way on small grids.

A band of queries is given the rows that its windows reach, so that the mask stays small and the
work grows with height * width * width * radius. It is the only fast backend that takes any mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..partial import Part, aligned_zeros, attend_part
from . import groups
from .axis import pieces
from .call import About, Call, Footprint
from .global_tokens import attend_everywhere, shared_bias, shared_keys
from .sizes import hidden_bytes, output_bytes, shared_bytes, shared_tokens

# Elements of one band's mask: 2**22 float32 values are 16 MiB.
MASK_ELEMENTS = 2**22

# While a band's mask is made, five int64 tensors of its shape exist at once (`Window.sees`).
_MASK_BYTES = 5 * 8


ABOUT = About("suits small pictures and regional masks", linear=False)


def why_not(q: Tensor, call: Call) -> str | None:
    return None


def why_not_auto(q: Tensor, call: Call) -> str | None:
    layout, window = call.layout, call.window
    if not call.queries.band(layout) or (call.mask is not None and call.mask.general is not None):
        return None
    keys = min(layout.height, _band_rows(call) + 2 * window.reach) * layout.width
    # Measured on CPU for radius 4 to 32: tiles win once a band has more keys than a tile's window.
    if keys <= (2 * window.radius + 4) ** 2:
        return None
    return f"on {layout.height} x {layout.width} tokens tiles compute fewer pairs"


def footprint(q: Tensor, call: Call) -> Footprint:
    return groups.footprint(_footprint, q, call)


def _footprint(q: Tensor, call: Call) -> Footprint:
    layout, heads, tokens = call.layout, q.shape[0] * q.shape[1], q.shape[2]
    if _is_plain(call):
        return Footprint(tokens * layout.tokens, output_bytes(q), linear=False)
    shared = shared_tokens(call)
    pairs, peak = call.queries.others(layout) * layout.tokens, 0
    for top, bottom in _bands(call):
        queries = (bottom - top) * layout.width
        reached = sum(rows.stop - rows.start for rows in _reached(call, top, bottom))
        pairs += queries * (shared + reached)
        # Those before it, and its keys and values.
        held = _query_rows(call, top, bottom).start + 2 * (shared + reached) // call.groups
        added = (shared + reached) * _added_biases(call) * q.dtype.itemsize
        bias = queries * max(reached * _MASK_BYTES, added)
        peak = max(peak, hidden_bytes(q, held) + bias)
    # Bands and the whole that is made of them lie side by side at the end.
    memory = max(peak + 4 * heads * tokens, 2 * output_bytes(q)) + shared_bytes(q, call)
    return Footprint(pairs, memory, linear=False)


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    if _is_plain(call):
        return attend_part(q, k, v, scale=call.scale)
    text, extra = attend_everywhere(q, k, v, call)
    bands: list[Part] = []
    if call.queries.band(call.layout):
        shared = shared_keys(k, call), shared_keys(v, call)
        bands = [_band(q, k, v, shared, call, top, bottom) for top, bottom in _bands(call)]
    parts = [text, *bands, extra]
    return Part(
        torch.cat([part.out for part in parts], 2), torch.cat([part.lse for part in parts], 2)
    )


def _is_plain(call: Call) -> bool:
    """Tell whether every query sees every token, so that there is nothing to mask."""
    if call.mask is not None:
        return False
    covers = call.window.covers(call.layout.height, call.layout.width)
    return (covers and call.pooling is None) or not call.queries.band(call.layout)


def _bands(call: Call) -> list[tuple[int, int]]:
    """Return the first row of each band and the row behind its last."""
    rows, step = call.queries.band(call.layout), _band_rows(call)
    return [(top, min(rows.stop, top + step)) for top in rows[::step]]


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
    keys = _reached(call, top, bottom)

    def joined(shared: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat((shared, *(tokens[:, :, rows] for rows in keys)), 2)

    return attend_part(
        q[:, :, _query_rows(call, top, bottom)],
        groups.once_per_group(call, joined, shared[0], k),
        groups.once_per_group(call, joined, shared[1], v),
        scale=call.scale,
        bias=_bias(call, top, bottom, keys, q),
    )


def _query_rows(call: Call, top: int, bottom: int) -> slice:
    """Return the positions of rows among the queries."""
    start = call.queries.image_slice(call.layout).start
    first, width = call.queries.first_row, call.layout.width
    return slice(start + (top - first) * width, start + (bottom - first) * width)


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


def _bias(call: Call, top: int, bottom: int, keys: list[slice], like: Tensor) -> Tensor:
    """Return the band's mask as a bias, ``[1 or B, 1 or H, queries, shared + keys]``."""
    layout, shared = call.layout, shared_tokens(call)
    query, key = (
        torch.cat([torch.arange(rows.start, rows.stop, device=like.device) for rows in side])
        - layout.text
        for side in ([_grid_rows(call, slice(top, bottom))], keys)
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
    if call.mask.general is not None:
        mask = call.mask.general[:, :, _query_rows(call, top, bottom)]
        return bias + _shared_and_keys(mask, call, keys)
    of_shared = shared_bias(call)
    return bias if of_shared is None else bias + F.pad(of_shared, (0, len(key)))


def _added_biases(call: Call) -> int:
    """Return how many biases of a band exist at once where a caller's mask is added to its own."""
    if call.mask is None:
        return 0
    if call.mask.general is not None:  # in the order of the keys, and as a sum
        return 1 + 2 * call.mask.general.shape[0] * call.mask.general.shape[1]
    return 0 if call.mask.bias is None else 1 + call.mask.bias.shape[0] * call.mask.bias.shape[1]


def _shared_and_keys(mask: Tensor, call: Call, keys: list[slice]) -> Tensor:
    """Reorder the columns of a mask as the band's keys lie: text, extra, pooled, grid rows."""
    layout = call.layout
    columns = [mask[..., layout.text_slice], mask[..., layout.extra_slice]]
    if call.pooling is not None:
        grid = mask[..., layout.image_slice]
        columns.append(call.pooling.pool_bias(grid, layout.height, layout.width))
    return torch.cat([*columns, *(mask[..., rows] for rows in keys)], -1)
