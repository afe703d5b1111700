"""What the figure of a measurement shows: its map, marks and axes against the numbers."""

from __future__ import annotations

import pytest
import torch
from figure_contents import curves, figure_of, legend, ticks
from locality_cases import BLOCKS, locality
from matplotlib.colors import to_hex

from clear_attention.locality.figure import draw
from clear_attention.locality.report import LocalityReport

# Heads see 0.2 at any radius, and the rest from their own radius on; the last block's grid ends
# at radius 5, beyond which nothing is hidden.
SMALL_GRID = {"single 1": locality(1, 5, grid=5)}
KEPT = [
    [0.2] * 2 + [0.6] * 8 + [1.0] * 2,
    [0.2] * 1 + [0.6] * 2 + [1.0] * 9,
    [0.2] * 5 + [1.0] * 7,
    [0.6] * 4 + [1.0] * 8,
]
RADIUS, SHARE = 5, 0.9


@pytest.fixture(scope="module")
def figure():
    return figure_of(draw, LocalityReport(BLOCKS | SMALL_GRID, SHARE, RADIUS))


def test_the_map_shows_what_each_radius_keeps_in_each_block(figure):
    left, _, bar = figure.axes
    (mesh,) = (each for each in left.collections if each.get_array() is not None)
    torch.testing.assert_close(torch.tensor(mesh.get_array()).float(), torch.tensor(KEPT))
    corners = torch.tensor(mesh.get_coordinates())
    assert corners[0, :, 0].tolist() == [radius + 0.5 for radius in range(13)]
    assert corners[:, 0, 1].tolist() == [row - 0.5 for row in range(5)]
    assert mesh.get_clim() == (pytest.approx(0.2), 1.0)
    assert {text: pytest.approx(place) for place, text in ticks(bar.yaxis).items()}.items() >= {
        "20%": 0.2,
        "40%": 0.4,
        "100%": 1.0,
    }.items()


def test_the_axes_of_the_map_are_radii_and_blocks_from_the_top(figure):
    left, right, _ = figure.axes
    assert ticks(left.yaxis) == {0: "double 0", 1: "double 1", 2: "single 0", 3: "single 1"}
    assert left.get_ylim() == right.get_ylim() == (3.5, -0.5)
    assert left.get_xscale() == "log" and left.get_xlim() == (0.75, 12.5)
    assert ticks(left.xaxis) == {1: "1", 2: "2", 4: "4", 8: "8"}
    assert left.get_xlabel() == "radius in tokens (logarithmic)"
    assert left.get_title() == "Share of an image token's attention that CLEAR keeps"


def test_lines_reach_from_the_most_to_the_least_local_head_and_dots_are_suggested(figure):
    left = figure.axes[0]
    (judged, _, line), *heads = curves(left)
    assert judged == "radius 5" and [x for x, _ in line] == [5, 5]
    assert [points for _, _, points in heads] == [
        [(3, 0), (11, 0)],
        [(2, 1), (4, 1)],
        [(6, 2), (6, 2)],
        [(1, 3), (5, 3)],
    ]
    dots = left.collections[-1]
    assert dots.get_offsets().tolist() == [[11, 0], [4, 1], [6, 2], [5, 3]]


def test_the_legend_names_line_heads_and_dots(figure):
    entries = legend(figure)
    assert list(entries) == [
        "radius 5",
        "0.9 kept: from the most to the least local head",
        "0.9 kept on average: the suggested radius",
    ]
    judged, heads, suggested = entries.values()
    assert (judged.get_linestyle(), heads.get_linestyle()) == ("--", "-")
    assert len(suggested.get_offsets()) == 1  # a dot


def test_the_right_panel_shows_all_heads_and_their_mean_at_the_radius(figure):
    right = figure.axes[1]
    *means, (_, _, share) = curves(right)
    assert [x for x, _ in share] == [SHARE, SHARE]
    flat = [value for _, _, points in means for point in points for value in point]
    assert flat == pytest.approx([0.6, 0, 1.0, 1, 0.2, 2, 1.0, 3])
    spans = [
        segment.flatten().tolist() for each in right.collections for segment in each.get_segments()
    ]
    expected = [[0.2, 0, 1.0, 0], [1.0, 1, 1.0, 1], [0.2, 2, 0.2, 2], [1.0, 3, 1.0, 3]]
    assert spans == [pytest.approx(span) for span in expected]
    assert right.get_title() == "Kept at radius 5"
    assert right.get_xlabel() == "all heads, and their mean"
    assert right.xaxis.get_major_formatter()(0.5) == "50%"


def test_blocks_for_which_the_radius_is_too_small_have_a_colour_of_their_own(figure):
    right = figure.axes[1]
    dots = [colour for _, colour, _ in curves(right)[:4]]
    assert dots == [to_hex(each.get_color()[0]) for each in right.collections]
    assert dots[0] == dots[2] != dots[1] == dots[3]
    red, green, blue = (int(dots[0][at : at + 2], 16) for at in (1, 3, 5))
    assert red > max(green, blue)  # what is wrong is red


@pytest.mark.parametrize(("blocks", "height_px"), [(1, 473), (57, 1463)])
def test_the_picture_grows_with_the_blocks(blocks, height_px):
    many = {f"double {index}": locality(1 + index % 12, 2) for index in range(blocks)}
    picture = draw(LocalityReport(many, share=0.9, radius=200))
    assert picture.dtype == torch.float32
    assert 0 <= picture.min() < picture.max() <= 1
    assert picture.shape == (height_px, 1265, 3)
