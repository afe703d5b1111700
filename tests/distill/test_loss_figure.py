"""The losses as a figure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from figure_contents import curves, figure_of, legend
from matplotlib.colors import to_hex

from clear_attention.distill import loss_figure
from clear_attention.distill.log import Log

LOSS, FLOW = [1.0, 0.5, 0.3], [2.0, 4.0, 3.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run whose losses are logged after every tenth update."""
    log = Log(tmp_path, 0)
    for step, (loss, flow) in enumerate(zip(LOSS, FLOW, strict=True)):
        values = {"loss": loss, "flow": flow, "gradient": 1e6, "rate": 1e-3}
        log.add(10 * step + 10, values, "train")
    log.add(30, {"loss": 0.7, "flow": 3.5}, "held_out")
    return tmp_path


@pytest.fixture
def axes(folder: Path):
    (axes,) = figure_of(loss_figure.draw, folder).axes
    return axes


def test_lines_are_smoothed_training_losses_and_dots_are_held_out_ones(axes):
    drawn = curves(axes)
    assert [points for _, _, points in drawn] == [
        [(10, 1.0), (20, 0.75), (30, pytest.approx(0.6))],
        [(30, 0.7)],
        [(10, 2.0), (20, 3.0), (30, 3.0)],
        [(30, 3.5)],
    ]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "None", "-", "None"]
    assert [line.get_marker() for line in axes.lines] == ["None", "o", "None", "o"]


def test_a_loss_has_one_colour_and_one_entry_in_the_legend(axes):
    line, dots, other_line, other_dots = [colour for _, colour, _ in curves(axes)]
    assert line == dots != other_line == other_dots
    entries = {text: to_hex(handle.get_color()) for text, handle in legend(axes).items()}
    assert entries == {"loss": line, "flow": other_line}
    assert [label for label, _, _ in curves(axes)] == ["loss", "", "flow", ""]


def test_the_axes_are_updates_and_losses(axes):
    assert axes.get_xlabel() == "updates"
    assert axes.get_ylabel() == "loss (dots: held-out data)"
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_the_figure_becomes_a_picture(folder: Path):
    assert loss_figure.draw(folder).shape == (550, 990, 3)


def test_a_run_without_losses_has_an_empty_figure(tmp_path):
    assert loss_figure.draw(tmp_path).shape == (550, 990, 3)


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        loss_figure.draw(tmp_path)


def test_the_line_averages_over_what_came_before():
    assert loss_figure.smooth([4.0, 2.0, 0.0]) == [4.0, 3.0, 2.0]
    assert loss_figure.smooth([0.0] * 30 + [20.0])[-1] == pytest.approx(1.0)
