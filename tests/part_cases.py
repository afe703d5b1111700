"""Calls that are more than one layout and one mask-free window: parts, groups of heads, masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from attention_cases import Case, cases
from hypothesis import strategies as st
from mask_cases import KINDS, draw_mask
from torch import Tensor

from clear_attention import Queries, attention
from clear_attention.masks import general_mask


@dataclass(frozen=True)
class Asked:
    """A call of which only some queries come.

    Attributes:
        case: the whole call; its heads are those of the keys.
        queries: which of its tokens ask.
        groups: query heads per key head.
        mask: over all tokens, ``[B or 1, H or 1, L or 1, L]``, or None.
    """

    case: Case
    queries: Queries
    groups: int
    mask: Tensor | None

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q of all tokens, k and v."""
        _, k, v = self.case.tensors()
        shape = (k.shape[0], k.shape[1] * self.groups, *k.shape[2:])
        generator = torch.Generator().manual_seed(self.case.seed + 7)
        return torch.randn(shape, generator=generator).to(k.dtype), k, v

    def compute(self, q: Tensor, k: Tensor, v: Tensor, backend: str) -> Any:
        """Compute the queries that come, from q of all tokens; return also the log-sum-exp."""
        layout, window = self.case.geometry
        mask = self.mask
        if mask is not None and mask.shape[2] > 1:
            mask = self.queries.of(mask, layout)
        return attention(
            self.queries.of(q, layout),
            k,
            v,
            layout,
            window,
            queries=self.queries,
            mask=mask,
            **self.case.options,
            backend=backend,
            return_lse=True,
        )

    def specify(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the same from the whole: copied keys, a dense mask, and the queries cut out."""
        layout, window = self.case.geometry
        k, v = (x.repeat_interleave(self.groups, 1) for x in (k, v))
        whole = attention(
            *(q, k, v, layout, window),
            mask=None if self.mask is None else general_mask(self.mask, layout),
            **self.case.options,
            backend="reference",
            return_lse=True,
        )
        out, lse = (self.queries.of(x, layout) for x in whole)
        return out, lse


@st.composite
def asked_calls(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, **fixed: Any) -> Asked:
    """Draw a call; keyword arguments fix attributes of its case."""
    fixed = {"strides": "contiguous", "dtype": torch.float64, **fixed}
    case = draw(cases(**fixed))
    layout, groups = case.layout, draw(st.integers(1, 3))
    first = draw(st.integers(0, layout.height))
    rows = draw(st.one_of(st.none(), st.integers(0, layout.height - first)))
    kind = draw(st.sampled_from((None, *kinds)))
    mask = None
    if kind is not None:
        mask = draw(draw_mask(kind, layout, case.batch, case.heads * groups))
    text, extra, cached = draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 2))
    return Asked(case, Queries(text, extra, first, rows, cached), groups, mask)
