"""From latents and sequence lengths to layouts; needs no host."""

from __future__ import annotations

import pytest
import torch

from clear_attention.comfyui.core.geometry import Geometry, geometry_of


@pytest.mark.parametrize(("patch", "grid"), [(1, (23, 18)), (2, (12, 9)), (4, (6, 5))])
def test_odd_latents_are_rounded_up_to_whole_tokens(patch, grid):
    geometry = geometry_of(torch.zeros(1, 16, 23, 18), [], patch)
    assert (geometry.height, geometry.width) == grid


def test_latents_of_videos_are_measured_in_their_last_two_dimensions():
    assert geometry_of(torch.zeros(1, 16, 1, 8, 6), [], 2) == Geometry(4, 3)


def test_references_lie_behind_the_grid():
    references = [torch.zeros(1, 16, 5, 4), torch.zeros(1, 16, 2, 2)]
    layout = geometry_of(torch.zeros(1, 16, 8, 8), references, 2).layout(16 + 7 + 40)
    assert (layout.text, layout.extra) == (40, 7)


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
