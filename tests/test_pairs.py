"""The work that CLEAR saves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Pooling, TokenLayout, Window
from clear_attention.backends.call import Call
from clear_attention.backends.reference import visible
from clear_attention.pairs import all_pairs, visible_pairs

FLOPS_PER_PAIR = 4 * 24 * 128  # of FLUX: two products over 24 heads of width 128

# Edge of the grid in tokens -> TFLOP of one attention layer, full and with radius 8, 16, 32
# (CLEAR, table 1, 512 text tokens).
TFLOP = {
    64: (0.26, 0.06, 0.09, 0.15),
    128: (3.51, 0.25, 0.35, 0.72),
    256: (53.60, 0.98, 1.43, 3.14),
    512: (847.73, 3.92, 5.79, 13.09),
}


@pytest.mark.parametrize("edge", TFLOP)
def test_the_pairs_give_the_operations_of_the_paper(edge):
    layout = TokenLayout(512, edge, edge)
    pairs = [all_pairs(layout), *(visible_pairs(layout, Window(radius)) for radius in (8, 16, 32))]
    tflop = [count * FLOPS_PER_PAIR / 1e12 for count in pairs]
    assert tflop == pytest.approx(TFLOP[edge], abs=0.0051)  # two digits are printed


@given(
    layout=st.builds(
        TokenLayout, st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3)
    ),
    window=st.builds(Window, st.integers(1, 12), st.booleans(), st.booleans()),
    factor=st.integers(0, 4),
)
def test_counted_pairs_are_those_that_the_reference_computes(layout, window, factor):
    pooling = Pooling(factor) if factor else None
    seen = visible(Call(layout, window, pooling, scale=1.0), device=None)
    assert visible_pairs(layout, window, pooling) == seen.sum()


@given(text=st.integers(0, 5), height=st.integers(1, 5), width=st.integers(1, 5))
def test_a_window_over_the_whole_grid_needs_all_pairs(text, height, width):
    layout = TokenLayout(text, height, width, extra=2)
    assert visible_pairs(layout, Window(9)) == all_pairs(layout)
