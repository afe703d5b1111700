"""What holds for attention however it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from attention_cases import (
    WAYS,
    Case,
    assert_as_exact_as,
    attend,
    cases,
    exactly,
)
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Pooling, TokenLayout, Window, attention

every_way = pytest.mark.parametrize("way", WAYS)
local = cases(factor=0)


@every_way
@given(case=cases())
def test_any_size_dtype_and_stride_matches_the_reference(way, case):
    q, k, v = case.tensors()
    rest = (case.layout, case.window)
    options = dict(pooling=case.pooling(), return_lse=True)
    out, lse = attend(way, q, k, v, *rest, **options)
    coarse_out, coarse_lse = attention(q, k, v, *rest, **options, backend="reference")
    exact_out, exact_lse = exactly(q, k, v, *rest, **options)
    assert_as_exact_as(out, coarse_out, exact_out)
    assert_as_exact_as(lse, coarse_lse, exact_lse)
