"""Partitions: each line, each shared token and each place in the sequence is somebody's, once."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_cases import partitions

from clear_attention import TokenLayout
from clear_attention.parallel.partition import Partition, share_out

SIDES = st.integers(1, 40)


@st.composite
def shared_layouts(draw: st.DrawFn) -> tuple[Partition, TokenLayout, int]:
    """Draw a partition, the layout of its sequence, and the multiple of its cuts."""
    height, width, multiple = draw(SIDES), draw(SIDES), draw(st.integers(1, 5))
    layout = TokenLayout(draw(st.integers(0, 9)), height, width, draw(st.integers(0, 9)))
    return draw(partitions(height, width, multiple, layout.extra, most=8)), layout, multiple


@given(drawn=shared_layouts())
def test_each_line_belongs_to_one_rank_and_each_rank_has_some(drawn):
    partition, layout, _ = drawn
    bands = [partition.band(rank) for rank in range(partition.size)]
    assert all(bands)
    assert [line for band in bands for line in band] == [*range(max(layout.height, layout.width))]
    assert sum(partition.image(rank) for rank in range(partition.size)) == layout.image


@given(drawn=shared_layouts())
def test_a_pooled_cell_lies_in_one_band(drawn):
    partition, _, multiple = drawn
    assert all(cut % multiple == 0 for cut in partition.cuts[:-1])


@given(drawn=shared_layouts())
def test_extra_tokens_are_shared_out_once(drawn):
    partition, layout, _ = drawn
    shared = [token for rank in range(partition.size) for token in partition.shared(rank)]
    assert shared == [*partition.all_shared]
    for rank in range(partition.size):
        parts = partition.own_extra(rank, layout.extra)
        assert len(parts) == 3
        held = [token for part in parts for token in part]
        others = set(shared) - set(partition.shared(rank))
        assert held == [token for token in range(layout.extra) if token not in others]


@given(units=st.integers(1, 300), shares=st.lists(st.floats(0.1, 9), min_size=1, max_size=8))
def test_a_cut_misses_its_share_by_half_a_line_unless_a_rank_would_get_none(units, shares):
    if units < len(shares):
        units *= len(shares)
    cuts = share_out(units, 1, shares).cuts
    for index, cut in enumerate(cuts):
        wanted = units * sum(shares[:index]) / sum(shares)
        crowded = cut == cuts[index - 1] + 1 or units - cut == len(shares) - index
        assert crowded or abs(cut - wanted) <= 0.5 + 1e-9


@given(drawn=shared_layouts())
def test_the_ranks_tokens_put_together_are_the_grid(drawn):
    partition, layout, _ = drawn
    tokens = torch.arange(layout.tokens)[None, :, None].expand(2, -1, 3)
    bands = []
    for rank in range(partition.size):
        own = partition.of(tokens, layout, rank)
        assert own.shape[1] == partition.tokens(rank, layout)
        assert torch.equal(own[:, : layout.text], tokens[:, : layout.text])
        bands.append(own[:, layout.text : layout.text + partition.image(rank)])
        extra = own[0, layout.text + partition.image(rank) :, 0] - layout.text - layout.image
        parts = partition.own_extra(rank, layout.extra)
        assert extra.tolist() == [token for part in parts for token in part]
    assert torch.equal(partition.join(bands), tokens[:, layout.image_slice])


@given(drawn=shared_layouts(), dim=st.integers(0, 3))
def test_tokens_may_lie_along_any_dimension(drawn, dim):
    partition, layout, _ = drawn
    tokens = torch.arange(2 * layout.tokens).view(layout.tokens, 2)
    spread = tokens[(...,) + (None,) * 2].movedim(0, dim)
    expected = partition.of(tokens, layout, 0, 0)
    actual = partition.of(spread, layout, 0, dim)
    assert torch.equal(actual.movedim(dim, 0).flatten(1), expected)
    whole = spread.narrow(dim, layout.text, layout.image)
    bands = [partition.of_grid(whole, rank, dim) for rank in range(partition.size)]
    assert torch.equal(partition.join(bands, dim), whole)


@given(drawn=shared_layouts())
def test_a_place_outside_the_grid_is_counted_among_the_ranks_own_tokens(drawn):
    partition, layout, _ = drawn
    places = torch.arange(layout.tokens)[:, None]
    for rank in range(partition.size):
        own = partition.of(places, layout, rank, 0)
        for token in (*range(layout.text + 1), *range(layout.text + layout.image, layout.tokens)):
            assert partition.kept_before(token, layout, rank) == int((own < token).sum())
        assert partition.kept_before(layout.tokens, layout, rank) == len(own)


def test_a_place_inside_the_grid_is_refused():
    partition, layout = share_out(4, 3, [1, 1]), TokenLayout(2, 4, 3)
    with pytest.raises(ValueError, match=r"token must lie outside the grid of .*, got 3\."):
        partition.kept_before(3, layout, 0)


@pytest.mark.parametrize(("size", "columns"), [((9, 8), False), ((8, 8), False), ((8, 9), True)])
def test_the_longer_side_is_cut(size, columns):
    partition = share_out(*size, [1, 1])
    assert partition.columns == columns
    assert (partition.lines, partition.line) == (max(size), min(size))


@pytest.mark.parametrize("shares", [[], [1, 0], [2, -1], [1, float("nan")]])
def test_shares_must_be_positive(shares):
    message = re.escape(f"shares must be positive numbers, got {shares}.")
    with pytest.raises(ValueError, match=message):
        share_out(8, 8, shares)


def test_more_ranks_than_bands_are_refused():
    assert share_out(7, 2, [1, 1], multiple=4).cuts == (0, 4, 7)
    with pytest.raises(ValueError, match=r"7 x 2 tokens must be at least 12 lines .* fewer dev"):
        share_out(7, 2, [1, 1, 1], multiple=4)


@pytest.mark.parametrize("cuts", [(), (0,), (0, 5), (1, 6), (0, 3, 3, 6), (0, 4, 2, 6), (0, 7)])
def test_bands_must_make_up_the_grid(cuts):
    with pytest.raises(ValueError, match=r"cuts must ascend from 0 to the 6 lines of the grid, go"):
        Partition(6, 3, cuts)


@pytest.mark.parametrize("extra", [(0, 3), (0, 2, 1), (-1, 0, 2)])
def test_shared_tokens_must_be_one_range_for_each_rank(extra):
    with pytest.raises(ValueError, match=r"extra must ascend .* 3 numbers.*, got"):
        Partition(6, 3, (0, 3, 6), extra=extra)
