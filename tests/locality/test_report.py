"""What people read of a measurement: the table and the figure."""

from __future__ import annotations

import sys

import pytest
import torch

from clear_attention.locality.figure import draw
from clear_attention.locality.measure import Locality
from clear_attention.locality.report import LocalityReport


def locality(*heads, seen_by_all=0.2):
    """Return heads that put the rest of their mass on the radius given for each."""
    first_seen = torch.zeros(len(heads), 12)
    for head, radius in enumerate(heads):
        first_seen[head, radius - 1] = 1 - seen_by_all
    return Locality(torch.full((len(heads),), seen_by_all), first_seen)


BLOCKS = {"double 0": locality(3, 11), "double 1": locality(2, 4), "single 0": locality(6, 6)}


def test_blocks_that_need_more_than_the_radius_are_named():
    report = LocalityReport(BLOCKS, share=0.9, radius=5)
    assert report.radii() == {"double 0": 11, "double 1": 4, "single 0": 6}
    assert report.too_small_for() == ["double 0", "single 0"]
    assert LocalityReport(BLOCKS, share=0.9, radius=11).too_small_for() == []


def test_the_table_has_a_line_for_each_block():
    table = LocalityReport(BLOCKS, share=0.9, radius=5, remarks=("Measured well.",)).table()
    rows = {line[:8]: line[8:].split() for line in table.splitlines()}
    assert rows["double 0"] == ["11", "(11)", "60.0%", "(20.0%)", "50.0%"]
    assert rows["double 1"] == ["4", "(4)", "100.0%", "(100.0%)", "100.0%"]
    assert rows["single 0"] == ["6", "(6)", "20.0%", "(20.0%)", "0.0%"]
    assert "Measured well." in table.splitlines()
    assert table.endswith("Radius 5 is enough for 1 of 3 blocks, radius 11 for all.")


@pytest.mark.parametrize("radius", [1, 5, 200])
@pytest.mark.parametrize("blocks", [1, 3, 57])
def test_the_figure_is_a_picture_that_grows_with_the_blocks(blocks, radius):
    many = {f"double {index}": locality(1 + index % 12, 2) for index in range(blocks)}
    picture = draw(LocalityReport(many, share=0.9, radius=radius))
    assert picture.dtype == torch.float32
    assert 0 <= picture.min() < picture.max() <= 1
    height, width, channels = picture.shape
    assert (width, channels) == (1265, 3)
    assert (height > 1400) == (blocks == 57)
    assert len(picture.reshape(-1, 3).unique(dim=0)) > 100


def test_without_matplotlib_the_figure_says_what_to_install(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    report = LocalityReport(BLOCKS, share=0.9, radius=5)
    with pytest.raises(ModuleNotFoundError, match="Run `pip install matplotlib`"):
        draw(report)
    assert report.table()
