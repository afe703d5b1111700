"""Masks to test with, of each kind that models hand to their attention."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from clear_attention import TokenLayout

# What each is made of; all but the last concern text and extra keys only.
KINDS = ("padding", "padding of each sequence", "bias", "square", "over pictures")


@st.composite
def draw_mask(draw: st.DrawFn, kind: str, layout: TokenLayout, batch: int, heads: int) -> Tensor:
    """Draw a mask ``[B or 1, H or 1, L or 1, L]`` over a layout's tokens.

    Args:
        draw: hypothesis's own.
        kind: one of `KINDS`.
        layout: of the call.
        batch: of the call.
        heads: of the call.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    alike = kind in ("padding", "over pictures")
    shape = (1 if alike else batch, 1 if alike else draw(st.sampled_from((1, heads))), 1)
    shared = [*range(layout.text), *range(layout.tokens - layout.extra, layout.tokens)]
    hidden = torch.rand((*shape, len(shared)), generator=generator) < 0.5
    low = draw(st.sampled_from((-torch.inf, torch.finfo(torch.float32).min)))
    mask = torch.zeros(*shape, layout.tokens, dtype=torch.float64)
    mask[..., shared] = torch.zeros(hidden.shape, dtype=mask.dtype).masked_fill_(hidden, low)
    if kind == "bias":
        mask[..., shared] += torch.randn(hidden.shape, generator=generator, dtype=mask.dtype)
    if kind == "square":
        mask = mask.repeat(1, 1, layout.tokens, 1)
        rows = mask[:, :, shared]
        mask[:, :, shared] = torch.randn(rows.shape, generator=generator, dtype=mask.dtype)
    if kind == "over pictures":
        mask[..., layout.text + draw(st.integers(0, layout.image - 1))] = -0.7
    return mask
