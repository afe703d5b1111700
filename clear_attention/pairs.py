"""How many query-key pairs a call needs: the work that CLEAR saves, as numbers."""

from __future__ import annotations

from .layout import TokenLayout
from .pooling import Pooling
from .queries import ALL, Queries
from .window import Window


def all_pairs(layout: TokenLayout, queries: Queries = ALL) -> int:
    """Count the pairs of full attention."""
    return queries.tokens(layout) * layout.tokens


def visible_pairs(
    layout: TokenLayout, window: Window, pooling: Pooling | None = None, queries: Queries = ALL
) -> int:
    """Count the pairs of CLEAR attention, the pooled keys included.

    4 * heads * head_dim times this number are the floating point operations of one layer, as in
    the paper's tables.
    """
    seen_by_all = layout.text + layout.extra
    if pooling is not None:
        seen_by_all += pooling.cells(layout.height, layout.width)
    everything = queries.others(layout) * layout.tokens
    seen = window.pairs(layout.height, layout.width, queries.band(layout))
    return everything + queries.image(layout) * seen_by_all + seen
