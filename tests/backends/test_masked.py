"""Bands of rows, and what a caller hides on top."""

from __future__ import annotations

import pytest
import torch
from attention_cases import assert_as_exact_as, attend, cases, exactly, out_noise
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import attention


@st.composite
def masks(draw, case):
    """Draw a mask of any shape that broadcasts, under which every query sees something."""
    tokens = case.layout.tokens
    full = (case.batch, case.heads, tokens, tokens)
    shape = [draw(st.sampled_from((1, size))) for size in full[draw(st.integers(0, 2)) :]]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    seen = torch.rand(shape, generator=generator) < draw(st.sampled_from((0.2, 0.9)))
    if shape[-2:] == [tokens, tokens]:
        seen |= torch.eye(tokens, dtype=torch.bool)
    elif shape[-1] == tokens and case.layout.text:
        seen[..., 0] = True
    else:
        seen[:] = True
    if draw(st.booleans()):
        return seen
    bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    return bias.masked_fill(~seen, -torch.inf).to(case.dtype)


@pytest.mark.parametrize("way", ["masked", "masked in bands", "masked without fused attention"])
@given(data=st.data(), case=cases())
def test_masks_of_any_shape_match_the_reference(way, data, case):
    q, k, v = case.tensors()
    options = {**case.options, "mask": data.draw(masks(case))}
    out = attend(way, q, k, v, *case.geometry, **options)
    coarse = attention(q, k, v, *case.geometry, **options, backend="reference")
    exact = exactly(q, k, v, *case.geometry, **options)
    assert_as_exact_as(out, coarse, exact, out_noise(out, exact))
