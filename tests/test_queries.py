"""Queries that are a part of a layout: which tokens they are, and what they cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Pooling, Queries, TokenLayout, Window
from clear_attention.backends.call import Call
from clear_attention.backends.reference import visible
from clear_attention.pairs import all_pairs, visible_pairs
from clear_attention.queries import ALL

LAYOUT = TokenLayout(text=2, height=3, width=4, extra=1)

layouts = st.builds(
    TokenLayout, st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3)
)


@st.composite
def queries(draw, layout):
    """Draw any part of a layout."""
    first = draw(st.integers(0, layout.height))
    rows = draw(st.one_of(st.none(), st.integers(0, layout.height - first)))
    return Queries(draw(st.booleans()), draw(st.booleans()), first, rows, draw(st.integers(0, 6)))


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (Queries(), range(15)),
        (Queries(text=False, extra=False), range(2, 14)),
        (Queries(first_row=1, rows=1), [0, 1, 6, 7, 8, 9, 14]),
        (Queries(text=False, first_row=2), range(10, 15)),
        (Queries(extra=False, rows=0), [0, 1]),
        (Queries(rows=0), [0, 1, 14]),
        (Queries(text=False, extra=False, first_row=3), []),
        (Queries(first_text=1), range(1, 15)),
        (Queries(extra=False, rows=0, first_text=3), []),
    ],
    ids=["all", "image", "one row", "tail", "text", "others", "none", "cached", "all cached"],
)
def test_queries_come_in_the_order_of_the_layout(asked, tokens):
    numbered = torch.arange(15)[None, None, :, None]
    assert asked.of(numbered, LAYOUT).flatten().tolist() == list(tokens)
    assert asked.tokens(LAYOUT) == len(tokens)


@given(data=st.data(), layout=layouts)
def test_parts_of_the_queries_lie_one_behind_the_other(data, layout):
    asked = data.draw(queries(layout))
    chosen = asked.of(torch.arange(layout.tokens), layout, dim=0)
    text, image, extra = (
        chosen[part(layout)] for part in (asked.text_slice, asked.image_slice, asked.extra_slice)
    )
    assert torch.equal(torch.cat((text, image, extra)), chosen)
    assert (text < layout.text).all()
    assert (extra >= layout.text + layout.image).all()
    rows = (image - layout.text) // layout.width
    assert rows.tolist() == [row for row in asked.band(layout) for _ in range(layout.width)]


def test_adjacent_queries_are_a_view():
    tokens = torch.zeros(1, 1, 15, 2)
    for asked in (ALL, Queries(text=False), Queries(extra=False, rows=2)):
        assert asked.of(tokens, LAYOUT).data_ptr() == tokens[
            :, :, -asked.tokens(LAYOUT) :
        ].data_ptr() or (asked.text and asked.of(tokens, LAYOUT).data_ptr() == tokens.data_ptr())


@pytest.mark.parametrize("name", ["first_row", "rows", "first_text"])
@pytest.mark.parametrize("value", [-1, 1.0, True])
def test_rows_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=rf"Queries.{name} must be an integer .* got {value!r}"):
        Queries(**{name: value})


@pytest.mark.parametrize("asked", [Queries(first_row=4), Queries(first_row=2, rows=2)])
def test_rows_outside_the_grid_are_refused(asked):
    with pytest.raises(ValueError, match=r"must lie in the grid's 3 rows, got .* from row \d on"):
        asked.tokens(LAYOUT)


@given(
    data=st.data(),
    layout=layouts,
    window=st.builds(Window, st.integers(1, 12), st.booleans(), st.booleans()),
    factor=st.integers(0, 4),
)
def test_counted_pairs_are_those_that_the_reference_computes(data, layout, window, factor):
    asked = data.draw(queries(layout))
    pooling = Pooling(factor) if factor else None
    seen = visible(Call(layout, window, pooling, scale=1.0, queries=asked), device=None)
    assert visible_pairs(layout, window, pooling, asked) == seen.sum()
    assert all_pairs(layout, asked) == seen[:, : layout.tokens].numel()
