"""The picture that holds CLEAR against tiles: how tiles are cut, and that its figures see them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from demo.tiles.cutting import TILE_PX, tiles_of
from demo.tiles.drawing import Cell, Row, drawing
from demo.tiles.measures import repeats, seams

TILE = 192
EDGE = 5 * TILE


def noise(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def in_tiles(tile_of):
    """Lay a picture out of tiles, each given by its number."""
    rows = [torch.cat([tile_of(5 * y + x) for x in range(5)], 1) for y in range(5)]
    return torch.cat(rows)


def test_tiles_of_different_tones_have_seams_and_an_even_change_has_none():
    fine = 0.1 * noise(0, EDGE, EDGE, 3)
    toned = in_tiles(lambda number: noise(number, 1, 1, 3).expand(TILE, TILE, 3))
    assert seams(fine, TILE) == pytest.approx(1, abs=0.3)
    assert seams(fine + 0.1 * toned, TILE) > 3


def test_a_groove_between_equal_tiles_is_a_seam():
    groove = torch.ones(TILE)
    groove[:8] = groove[-8:] = 0
    tile = (groove[:, None] * groove)[..., None].expand(TILE, TILE, 3)
    assert seams(in_tiles(lambda _: tile) + 0.1 * noise(5, EDGE, EDGE, 3), TILE) > 3


def test_a_slope_of_tone_is_no_seam():
    slope = torch.linspace(0, 1, EDGE)[:, None, None].expand(EDGE, EDGE, 3)
    assert seams(slope + 0.05 * noise(1, EDGE, EDGE, 3), TILE) == pytest.approx(1, abs=0.2)


def test_equal_tiles_repeat_and_noise_does_not():
    one = noise(2, TILE, TILE, 3)
    assert repeats(in_tiles(lambda _: one), TILE) == pytest.approx(1, abs=1e-5)
    assert abs(repeats(noise(3, EDGE, EDGE, 3), TILE)) < 0.05


def test_repeats_of_large_shapes_are_not_counted():
    shape = (torch.arange(TILE) * 2 * torch.pi / TILE).sin()[:, None, None].expand(TILE, TILE, 3)
    change = in_tiles(lambda _: shape) + 0.1 * noise(4, EDGE, EDGE, 3)
    assert repeats(change, TILE) < 0.1


def test_tiles_fill_the_picture_once_with_soft_borders():
    edge = 2 * TILE_PX + 128
    canvas = torch.zeros(edge, edge, 1)
    crops = []
    for crop, share in tiles_of(edge):
        canvas = torch.lerp(canvas, torch.ones_like(canvas), share)
        outside = share.clone()
        outside[crop] = 0
        assert float(outside.abs().max()) == 0
        crops.append(crop)
    assert len(crops) == 9
    assert float(canvas.min()) > 0.68  # where four soft corners meet: 1 - (3 / 4) ** 4
    assert {part.start % 16 for crop in crops for part in crop} == {0}
    inner = [crop for crop in crops if all(p.start > 0 and p.stop < edge for p in crop)]
    assert {tuple(p.stop - p.start for p in crop) for crop in inner} == {(448, 448)}


@pytest.mark.parametrize("seconds", [0.5, 1234.5])
def test_nothing_is_written_beyond_the_edges_of_a_cell(seconds):
    from tools.drawing import Text, text_width

    cell = Cell("full attention", Image.new("RGB", (2048, 2048)), 12.3, 0.99, seconds)
    title = "denoise 0.3 with a ControlNet: a part at its true size"
    drawn = drawing([Row(title, [cell] * 3), Row(title, [cell] * 3, (100, 100))], "a note")
    for text in [shape for shape in drawn.shapes if isinstance(shape, Text)]:
        assert text.x + text_width(text.text, text.size, bold=text.bold) <= drawn.width
