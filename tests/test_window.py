"""Who sees whom on the grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Window
from clear_attention.window import radius_to_see

sizes = st.integers(1, 14)
radii = st.integers(1, 20)
windows = st.builds(Window, radii, wrap_height=st.booleans(), wrap_width=st.booleans())


@pytest.mark.parametrize(
    ("radius", "tokens"), [(1, 1), (2, 9), (4, 45), (8, 193), (16, 793), (32, 3205)]
)
def test_discs_have_the_published_sizes(radius, tokens):
    assert Window(radius).tokens == tokens


def test_the_border_of_the_disc_is_not_seen():
    window = Window(5)
    dy, dx = torch.tensor([3, 3, 5, 4]), torch.tensor([4, 3, 0, 2])
    assert window.sees(dy, dx).tolist() == [False, True, False, True]


@given(height=sizes, width=sizes, window=windows)
def test_the_mask_is_the_disc_around_each_token(height, width, window):
    mask = window.mask(height, width)
    for query in range(height * width):
        for key in range(height * width):
            dy = abs(query // width - key // width)
            dx = abs(query % width - key % width)
            dy = min(dy, height - dy) if window.wrap_height else dy
            dx = min(dx, width - dx) if window.wrap_width else dx
            assert mask[query, key] == (dy**2 + dx**2 < window.radius**2)


@given(height=sizes, width=sizes, window=windows)
def test_counted_pairs_are_those_of_the_mask(height, width, window):
    assert window.pairs(height, width) == window.mask(height, width).sum()


@given(height=sizes, width=sizes, window=windows)
def test_a_window_covers_the_grid_when_its_mask_hides_nothing(height, width, window):
    assert window.covers(height, width) == bool(window.mask(height, width).all())


@given(height=sizes, width=sizes, window=windows)
def test_beyond_its_edges_a_grid_shows_each_token_once(height, width, window):
    rows = torch.arange(-2 * height, 3 * height)
    columns = torch.arange(-2 * width, 3 * width)
    for y, x in ((0, 0), (height - 1, width // 2)):
        seen = window.sees_across(height, width, rows[:, None] - y, columns - x)
        copies = torch.zeros(height, width, dtype=torch.long)
        for row, column in seen.nonzero().tolist():
            at_y, at_x = int(rows[row]), int(columns[column])
            if (window.wrap_height or 0 <= at_y < height) and (
                window.wrap_width or 0 <= at_x < width
            ):
                copies[at_y % height, at_x % width] += 1
        mask = window.mask(height, width)[y * width + x].view(height, width)
        assert torch.equal(copies, mask.long())


@given(height=sizes, width=sizes, radius=radii)
def test_a_grid_that_wraps_around_looks_the_same_from_every_token(height, width, radius):
    mask = Window(radius, wrap_height=True, wrap_width=True).mask(height, width)
    from_first = mask[0].view(height, width)
    for token, seen in enumerate(mask):
        shift = (token // width, token % width)
        assert torch.equal(seen.view(height, width), from_first.roll(shift, (0, 1)))


def test_a_corner_on_the_border_of_the_disc_is_not_covered():
    assert not Window(5).covers(4, 5)  # 3 rows and 4 columns apart
    assert Window(6).covers(4, 5)
    assert not Window(5, wrap_height=True, wrap_width=True).covers(6, 8)  # the longest way round
    assert Window(5, wrap_height=True, wrap_width=True).covers(7, 7)


@given(radius=radii)
def test_rows_of_the_disc_are_as_wide_as_what_is_seen(radius):
    window = Window(radius)
    offsets = torch.arange(-radius - 1, radius + 2)
    sees = window.sees(offsets[:, None], offsets)
    for dy, row in zip(offsets.tolist(), sees, strict=True):
        assert 2 * window.half_width(dy) + 1 == (int(row.sum()) or -1)
    assert offsets[sees.any(1)].max() == window.reach


@given(dy=st.integers(-3000, 3000), dx=st.integers(-3000, 3000))
def test_the_radius_to_see_an_offset_is_the_smallest_that_does(dy, dx):
    offset = torch.tensor(dy), torch.tensor(dx)
    radius = int(radius_to_see(*offset))
    assert Window(radius).sees(*offset)
    assert radius == 1 or not Window(radius - 1).sees(*offset)


def test_whole_distances_need_the_next_radius():
    dy, dx = torch.tensor([0, 0, 3, 3, 4095, 30000]), torch.tensor([0, 2, 4, 3, 0, 40000])
    assert radius_to_see(dy, dx).tolist() == [1, 3, 6, 5, 4096, 50001]


@pytest.mark.parametrize("radius", [0, -3, 2.5, "8", True], ids=repr)
def test_impossible_radii_are_refused(radius):
    with pytest.raises(ValueError, match=r"Window\.radius must be a positive integer, got"):
        Window(radius)
