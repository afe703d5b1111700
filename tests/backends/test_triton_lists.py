"""What each tile of the Triton kernel visits: exactly what one of its tokens sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Window
from clear_attention.backends.triton import configs, lists
from clear_attention.backends.triton.lists import Shape, make_lists, visits

CPU = torch.device("cpu")


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.integers(1, 30),
    shape=st.sampled_from((Shape(8, 16, 64), Shape(4, 8, 16), Shape(8, 8, 32))),
)
def test_tiles_visit_exactly_what_one_of_their_tokens_sees(height, width, radius, shape):
    window = Window(radius)
    found = make_lists(window, height, width, shape, torch.float32, CPU)
    sees = window.mask(height, width)
    tiles = [(y, x) for y in range(0, height, shape.rows) for x in range(0, width, shape.columns)]
    computed = 0
    for index, (y, x) in enumerate(tiles):
        start, blocks = int(found.first[index]), int(found.blocks[index])
        entries = slice(start, start + blocks * shape.block)
        real = found.places[entries] != lists.NEVER
        visited = (y * width + x + found.offsets[entries]).long()
        ys = torch.arange(y, min(height, y + shape.rows))
        xs = torch.arange(x, min(width, x + shape.columns))
        tokens = (ys[:, None] * width + xs).flatten()
        expected = sees[tokens].any(0).nonzero().flatten()
        assert torch.equal(visited[real].sort().values, expected)
        assert (visited[~real] == y * width + x).all(), "what fills a block must be readable"
        assert blocks == math.ceil(len(expected) / shape.block)
        own = found.own.view(shape.rows, shape.columns, -1)[: len(ys), : len(xs)].flatten(0, 1)
        distance = own @ found.others[found.places[entries].long()].T
        seen = (distance < radius**2)[:, real]
        assert torch.equal(seen, sees[tokens][:, visited[real]])
        assert not (distance < radius**2)[:, ~real].any()
        computed += shape.tokens * blocks * shape.block
    assert computed == visits(window, height, width, shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_squared_distances_are_exact_up_to_the_largest_radius(dtype):
    window, shape = Window(lists.LARGEST_RADIUS), configs.WIDE
    room = 2 * window.radius + 20
    y, x = lists._visited(window, lists._border(window, room, room, shape, 200, 208), shape)
    own = torch.from_numpy(lists._own(shape)).to(dtype).double()
    others = torch.from_numpy(lists._others(window, shape)).to(dtype).double()
    visited = others[lists._place_of(y, x, window, shape)]
    dy = np.arange(shape.tokens)[:, None] // shape.columns - y
    dx = np.arange(shape.tokens)[:, None] % shape.columns - x
    assert torch.equal(own @ visited.T, torch.from_numpy(dy * dy + dx * dx).double())
    assert (own @ others[lists.ALWAYS] < 0).all()
    assert (own @ others[lists.NEVER] >= window.radius**2).all()
    # Whatever the order of its sums, float32 holds every part of them.
    assert (own.abs() @ visited.abs().T).max() < 2**24


@pytest.mark.parametrize(("radius", "ratio"), [(8, 1.40), (16, 1.45), (32, 1.40)])
def test_little_more_is_computed_than_is_visible(radius, ratio):
    text, edge, shape = 512, 512, configs.WIDE
    window = Window(radius)
    found = make_lists(window, edge, edge, shape, torch.bfloat16, CPU)
    tiles = len(found.first)
    of_image = int(found.blocks.sum()) * shape.block * shape.tokens
    with_text = of_image + tiles * shape.tokens * text + text * (text + edge * edge)
    true = window.pairs(edge, edge) + text * edge * edge + text * (text + edge * edge)
    assert with_text <= ratio * true
    assert of_image == visits(window, edge, edge, shape)


def test_the_size_of_lists_is_told_before_they_are_made():
    for radius, edge in ((8, 64), (16, 100), (5, 33)):
        size = lists.table_bytes(Window(radius), edge, edge, configs.WIDE)
        made = make_lists(Window(radius), edge, edge, configs.WIDE, torch.float16, CPU)
        assert made.offsets.nbytes + made.places.nbytes <= 1.2 * size
