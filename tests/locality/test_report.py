"""What people read of a measurement: the table."""

from __future__ import annotations

import sys

import pytest
from locality_cases import BLOCKS

from clear_attention.locality.figure import draw
from clear_attention.locality.report import LocalityReport


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


def test_without_matplotlib_the_figure_says_what_to_install(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    report = LocalityReport(BLOCKS, share=0.9, radius=5)
    with pytest.raises(ModuleNotFoundError, match="Run `pip install matplotlib`"):
        draw(report)
    assert report.table()
