"""Halos: the lines that a rank's windows reach, no more, and a grid in which they see the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_cases import partitions
from torch import Tensor

from clear_attention import Pooling, TokenLayout, Window
from clear_attention.parallel.halo import halo_of, turned
from clear_attention.parallel.partition import Partition

WINDOWS = st.builds(Window, st.integers(1, 9), st.booleans(), st.booleans())


@st.composite
def bands(draw: st.DrawFn) -> tuple[Partition, Window]:
    """Draw a partition and a window in the direction of its cut."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 7))
    return draw(partitions(max(height, width), min(height, width), 1, 0)), draw(WINDOWS)


def whole_mask(partition: Partition, window: Window) -> Tensor:
    """Return who sees whom, ``[line, token, line, token]``."""
    shape = (partition.lines, partition.line)
    return window.mask(*shape).view(*shape, *shape)


@given(drawn=bands())
def test_a_halo_holds_the_lines_that_a_window_reaches_and_no_others(drawn):
    partition, window = drawn
    mask = whole_mask(partition, window)
    for rank in range(partition.size):
        halo = halo_of(partition, rank, window)
        band = partition.band(rank)
        reached = mask[band.start : band.stop].any(3).any(1).any(0)
        lines = [line for _, piece in halo.pieces for line in piece]
        assert sorted(lines) == reached.nonzero().flatten().tolist()
        assert halo.lines == len(lines)


@given(drawn=bands())
def test_each_piece_is_a_part_of_its_owners_band(drawn):
    partition, window = drawn
    for rank in range(partition.size):
        for owner, piece in halo_of(partition, rank, window).pieces:
            band = partition.band(owner)
            assert piece
            assert band.start <= piece.start < piece.stop <= band.stop


@given(drawn=bands())
def test_in_the_grid_of_a_halo_a_band_sees_what_it_sees_in_the_whole(drawn):
    partition, window = drawn
    mask = whole_mask(partition, window)
    for rank in range(partition.size):
        halo, band = halo_of(partition, rank, window), partition.band(rank)
        lines = [line for _, piece in halo.pieces for line in piece]
        own = slice(halo.first, halo.first + len(band))
        assert lines[own] == [*band]
        shape = (halo.lines, partition.line)
        sub = halo.window.mask(*shape).view(*shape, *shape)
        assert torch.equal(sub[own], mask[band.start : band.stop][:, :, lines])


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_without_a_window_every_rank_needs_every_line(rank):
    partition = Partition(9, 4, (0, 2, 3, 9))
    halo = halo_of(partition, rank, None)
    assert halo.pieces == ((0, range(2)), (1, range(2, 3)), (2, range(3, 9)))
    assert halo.first == partition.cuts[rank]
    assert halo.window.covers(9, 4)


def test_what_one_rank_needs_of_a_neighbour_is_the_radius_less_one():
    partition = Partition(24, 4, (0, 8, 16, 24))
    halo = halo_of(partition, 1, Window(4))
    assert halo.pieces == ((0, range(5, 8)), (1, range(8, 16)), (2, range(16, 19)))
    wrapped = halo_of(partition, 0, Window(4, wrap_height=True))
    assert wrapped.pieces == ((2, range(21, 24)), (0, range(8)), (1, range(8, 11)))


@given(height=st.integers(1, 9), width=st.integers(1, 9), window=WINDOWS)
def test_turned_the_same_tokens_see_each_other(height, width, window):
    layout, turned_window, _ = turned(TokenLayout(3, height, width, 2), window, None)
    assert layout == TokenLayout(3, width, height, 2)
    mask = window.mask(height, width).view(height, width, height, width)
    assert turned_window is not None
    other = turned_window.mask(width, height).view(width, height, width, height)
    assert torch.equal(other, mask.permute(1, 0, 3, 2))


def test_turned_cells_have_the_weights_of_the_tokens_that_they_pool():
    tokens, pooling = torch.randn(1, 2, 6 * 5, 3), Pooling(2, torch.randn(2, 2))
    _, _, turned_pooling = turned(TokenLayout(0, 6, 5), None, pooling)
    assert turned_pooling is not None
    cells = pooling.pool(tokens, 6, 5).unflatten(2, (3, 3))
    columns = tokens.unflatten(2, (6, 5)).transpose(2, 3).flatten(2, 3)
    found = turned_pooling.pool(columns, 5, 6).unflatten(2, (3, 3))
    torch.testing.assert_close(found.transpose(2, 3), cells)
