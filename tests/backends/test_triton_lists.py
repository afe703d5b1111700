"""What each tile of the Triton kernel visits: exactly what one of its tokens sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from clear_attention import Window
from clear_attention.backends.triton import configs, lists
from clear_attention.backends.triton.grid import Grid, whole_grid
from clear_attention.backends.triton.lists import Shape, make_lists, visits

CPU = torch.device("cpu")
windows = st.builds(Window, st.integers(1, 30), wrap_height=st.booleans(), wrap_width=st.booleans())


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Draw a grid of which all rows or a band of them are on either side, on one side all."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    first = draw(st.integers(0, height - 1))
    band = range(first, draw(st.integers(first + 1, height)))
    grid = whole_grid(height, width, draw(windows))
    grid = draw(st.sampled_from((grid, grid._replace(own=band), grid._replace(others=band))))
    assume(lists.why_not(grid.window, height, width) is None)
    return grid


@given(
    grid=grids(),
    shape=st.sampled_from((Shape(8, 16, 64), Shape(4, 8, 16), Shape(8, 8, 32))),
)
@example(grid=whole_grid(15, 31, Window(8, True, True)), shape=Shape(8, 16, 64))
@example(grid=Grid(30, 9, Window(4), range(30), range(13, 14)), shape=Shape(4, 8, 16))
@example(grid=Grid(19, 9, Window(5, True), range(19), range(17, 19)), shape=Shape(8, 8, 32))
@example(grid=Grid(30, 40, Window(5), range(11, 22), range(30)), shape=Shape(8, 16, 64))
def test_tiles_visit_exactly_what_one_of_their_tokens_sees(grid, shape):
    width, window = grid.width, grid.window
    found = make_lists(grid, shape, torch.float32, CPU)
    sees = window.mask(grid.height, width)[:, tokens_of(grid.others, width)]
    tiles = [(y, x) for y in grid.own[:: shape.rows] for x in range(0, width, shape.columns)]
    assert len(found.first) == len(found.blocks) == len(tiles)
    computed = 0
    for index, (y, x) in enumerate(tiles):
        start, blocks = int(found.first[index]), int(found.blocks[index])
        # Kernels ask for the first block, also where there is none.
        assert start + shape.block <= len(found.offsets)
        entries = slice(start, start + blocks * shape.block)
        real = found.places[entries] != lists.NEVER
        visited = ((y - grid.own.start) * width + x + found.offsets[entries]).long()
        ys = torch.arange(y, min(grid.own.stop, y + shape.rows))
        xs = torch.arange(x, min(width, x + shape.columns))
        tokens = (ys[:, None] * width + xs).flatten()
        expected = sees[tokens].any(0).nonzero().flatten()
        assert torch.equal(visited[real].unique(), expected)
        assert torch.isin(visited[~real], expected).all(), "what fills a block must be readable"
        # A tile may meet a token by both ways round, each for queries of its own.
        assert blocks == math.ceil(int(real.sum()) / shape.block)
        assert window.wraps or real.sum() == len(expected)
        own = found.own.view(shape.rows, shape.columns, -1)[: len(ys), : len(xs)].flatten(0, 1)
        distance = own @ found.others[found.places[entries].long()].T
        seen = distance < window.radius**2
        times = torch.zeros(len(tokens), sees.shape[1], dtype=torch.long)
        times.index_add_(1, visited[real], seen[:, real].long())
        assert torch.equal(times, sees[tokens].long())
        assert seen[:, real].any(0).all() and not seen[:, ~real].any()
        computed += shape.tokens * blocks * shape.block
    assert computed == visits(grid, shape)


def tokens_of(rows: range, width: int) -> slice:
    return slice(rows.start * width, rows.stop * width)


def test_tiles_of_a_band_share_lists_like_those_of_the_whole():
    whole = whole_grid(96, 128, Window(16))
    shape, own = configs.WIDE, range(35, 67)
    band = make_lists(whole._replace(own=own), shape, torch.float32, CPU)
    # Neither end is as near to a border as the window reaches: nothing tells its rows apart.
    assert len(band.first) == 4 * 8
    assert torch.equal(band.first.view(4, 8), band.first[:8].expand(4, 8))
    across = len(make_lists(whole, shape, torch.float32, CPU).first.view(12, 8)[5].unique())
    assert len(band.first.unique()) == across


@pytest.mark.parametrize(
    ("radius", "height", "width"),
    [(192, 404, 404), (lists.LARGEST_RADIUS, 17, 8020), (lists.LARGEST_RADIUS, 8020, 9)],
)
def test_squared_distances_are_exact_up_to_the_largest_radius(radius, height, width):
    window, shape = Window(radius), configs.WIDE
    at = height // 16 * 8, width // 32 * 16
    grid = whole_grid(height, width, window)
    tile = lists.Tile(grid.down(at[0], shape.rows), grid.across(at[1], shape.columns))
    y, x, _ = lists._visited(grid, tile)
    reach = lists._reach(window, height, width)
    own = torch.from_numpy(lists._own(shape)).double()
    others = torch.from_numpy(lists._others(reach, shape)).double()
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(own.to(dtype).double(), own)
        assert torch.equal(others.to(dtype).double(), others)
    visited = others[lists._place_of(y, x, reach, shape)]
    dy = np.arange(shape.tokens)[:, None] // shape.columns - y
    dx = np.arange(shape.tokens)[:, None] % shape.columns - x
    assert torch.equal(own @ visited.T, torch.from_numpy(dy * dy + dx * dx).double())
    assert (own @ others[lists.NEVER] >= window.radius**2).all()
    # Whatever the order of its sums, float32 holds every part of them.
    assert (own.abs() @ visited.abs().T).max() < 2**24


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 4), (1, 300), (128, 128)])
def test_a_window_over_the_grid_is_as_wide_as_the_grids_diagonal(height, width):
    for radius in (1, 5, 10**6, 10**30):
        window = lists.within(Window(radius), height, width)
        assert window.radius <= math.hypot(height, width)
        assert window.radius == radius or window.covers(height, width)
        assert (
            window.radius == 1
            or not Window(window.radius - 1).covers(height, width)
            or (window.radius == radius)
        )


@pytest.mark.parametrize(("radius", "ratio"), [(8, 1.40), (16, 1.45), (32, 1.40)])
def test_little_more_is_computed_than_is_visible(radius, ratio):
    text, edge, shape = 512, 512, configs.WIDE
    window = Window(radius)
    grid = whole_grid(edge, edge, window)
    found = make_lists(grid, shape, torch.bfloat16, CPU)
    tiles = len(found.first)
    of_image = int(found.blocks.sum()) * shape.block * shape.tokens
    with_text = of_image + tiles * shape.tokens * text + text * (text + edge * edge)
    true = window.pairs(edge, edge) + text * edge * edge + text * (text + edge * edge)
    assert with_text <= ratio * true
    assert of_image == visits(grid, shape)


def test_the_size_of_lists_is_told_before_they_are_made():
    for window, edge in (
        (Window(8), 64),
        (Window(16), 100),
        (Window(5), 33),
        (Window(16, wrap_width=True), 100),
        (Window(16, wrap_height=True, wrap_width=True), 31),
    ):
        whole = whole_grid(edge, edge, window)
        for grid in (whole, whole._replace(own=range(9, 20)), whole._replace(others=range(9, 20))):
            size = lists.table_bytes(grid, configs.WIDE)
            made = make_lists(grid, configs.WIDE, torch.float16, CPU)
            told = made.offsets.nbytes + made.places.nbytes + made.others.nbytes
            assert told <= 1.2 * size


def test_a_window_that_meets_itself_is_refused():
    window = Window(8, wrap_width=True)
    assert lists.why_not(window, height=3, width=15) is None
    assert lists.why_not(window, 40, 14) == "a window of radius 8 meets itself around 14 columns"
    window = Window(8, wrap_height=True)
    assert lists.why_not(window, 14, 40) == "a window of radius 8 meets itself around 14 rows"
    assert lists.why_not(Window(8), 3, 3) is None
