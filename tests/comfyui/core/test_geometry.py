"""From latents and sequence lengths to layouts; needs no host."""

from __future__ import annotations

import pytest

from clear_attention import Queries
from clear_attention.comfyui.core.geometry import Geometry
from clear_attention.comfyui.families import tokens_of
from clear_attention.families.family import IMAGE_FIRST, TEXT_FIRST
from clear_attention.queries import ALL


@pytest.mark.parametrize(("patch", "grid"), [(1, (23, 18)), (2, (12, 9)), (4, (6, 5))])
def test_odd_latents_are_rounded_up_to_whole_tokens(patch, grid):
    assert tokens_of((1, 16, 23, 18), patch) == (1, *grid)


def test_latents_of_videos_have_frames():
    assert tokens_of((1, 16, 3, 8, 6), 2) == (3, 4, 3)
    assert Geometry(4, 3, frames=3).layout(36) is None


@pytest.mark.parametrize(
    ("order", "front", "behind"),
    [
        (("text", "image", "references"), 40, 7),
        (("image", "text", "references"), 0, 47),
        (("references", "image", "text"), 7, 40),
        (("references", "text", "image"), 47, 0),
    ],
)
def test_what_lies_in_front_of_the_grid_is_the_familys_order(order, front, behind):
    layout = Geometry(4, 4, references=7, order=order).layout(16 + 7 + 40)
    assert (layout.text, layout.extra) == (front, behind)


def test_a_sequence_shorter_than_the_grid_has_no_layout():
    geometry = Geometry(10, 10, references=5)
    assert geometry.layout(104) is None
    assert geometry.layout(105).text == 0


def test_padding_lies_between_the_grid_and_what_follows():
    layout = Geometry(3, 5, references=7, pads_to=8).layout(40 + 15 + 1 + 7)
    assert (layout.text, layout.image, layout.extra) == (40, 15, 8)
    assert Geometry(4, 4, pads_to=8).layout(40 + 16).extra == 0


@pytest.mark.parametrize(
    ("order", "pads_to", "behind"),
    [
        (TEXT_FIRST, 1, (("reference", 7),)),
        (TEXT_FIRST, 32, (("filling", 16), ("reference", 7))),
        (IMAGE_FIRST, 1, (("reference", 7), ("text", 40))),
        (("text", "references", "image", "padding"), 1, ()),
    ],
)
def test_what_lies_behind_the_grid_is_named(order, pads_to, behind):
    geometry = Geometry(4, 4, references=7, order=order, pads_to=pads_to)
    layout = geometry.layout(40 + 16 + -16 % pads_to + 7)
    assert geometry.behind(layout) == behind
    assert sum(number for _, number in behind) == layout.extra


@pytest.mark.parametrize(
    ("cached", "queries", "expected"),
    [
        ("references", 63, ALL),
        ("references", 56, Queries(extra=False)),
        ("references", 55, None),
        ("text", 60, Queries(first_text=3)),
        ("text", 23, Queries(first_text=40)),
        ("text", 22, None),
        ("text", 64, None),
    ],
)
def test_queries_that_a_cache_leaves_out_are_those_of_its_part(cached, queries, expected):
    geometry = Geometry(4, 4, references=7, cached=cached)
    layout = geometry.layout(63)
    assert geometry.queries(layout, queries) == expected
    assert expected is None or expected.tokens(layout) == queries
