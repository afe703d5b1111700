"""The order of the tokens."""

from __future__ import annotations

import pytest

from clear_attention import TokenLayout


def test_text_comes_first_then_the_grid_then_extra_tokens():
    layout = TokenLayout(text=5, height=3, width=4, extra=2)
    positions = range(layout.tokens)
    assert list(positions[layout.text_slice]) == [0, 1, 2, 3, 4]
    assert list(positions[layout.image_slice]) == list(range(5, 17))
    assert list(positions[layout.extra_slice]) == [17, 18]
    assert (layout.image, layout.tokens) == (12, 19)


def test_without_text_and_extra_only_the_grid_is_left():
    layout = TokenLayout(text=0, height=2, width=3)
    positions = range(layout.tokens)
    assert list(positions[layout.text_slice]) == list(positions[layout.extra_slice]) == []
    assert len(positions[layout.image_slice]) == layout.tokens == 6


def test_equal_layouts_are_one_key():
    assert len({TokenLayout(1, 2, 3), TokenLayout(1, 2, 3, extra=0), TokenLayout(1, 3, 2)}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2, 3), "TokenLayout.text must be an integer of at least 0, got -1"),
        ((0, 0, 3), "TokenLayout.height must be an integer of at least 1, got 0"),
        ((0, 2, 0), "TokenLayout.width must be an integer of at least 1, got 0"),
        ((0, 2, 3, -4), "TokenLayout.extra must be an integer of at least 0, got -4"),
        ((0, 2.0, 3), "TokenLayout.height must be an integer of at least 1, got 2.0"),
    ],
    ids=["negative text", "no rows", "no columns", "negative extra", "fraction"],
)
def test_impossible_layouts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenLayout(*arguments)
