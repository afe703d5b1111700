"""The losses as a figure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from clear_attention.distill import loss_figure
from clear_attention.distill.log import Log


def write_log(folder: Path, losses: list[float]) -> None:
    log = Log(folder, 0)
    for step, loss in enumerate(losses, 1):
        log.add(step, {"loss": loss, "gradient": 1e6}, "train")
    log.add(len(losses), {"loss": losses[-1]}, "held_out")


def test_the_figure_shows_the_losses(tmp_path):
    pictures = []
    for number, losses in enumerate(([1.0, 0.5, 0.2], [1.0, 0.9, 0.8])):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_log(folder, losses)
        pictures.append(loss_figure.draw(folder))
    assert pictures[0].shape == (550, 990, 3)
    assert not torch.equal(*pictures)


def test_a_run_without_losses_has_an_empty_figure(tmp_path):
    assert loss_figure.draw(tmp_path).shape == (550, 990, 3)


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        loss_figure.draw(tmp_path)


def test_the_line_averages_over_what_came_before():
    assert loss_figure.smooth([4.0, 2.0, 0.0]) == [4.0, 3.0, 2.0]
    assert loss_figure.smooth([0.0] * 30 + [20.0])[-1] == pytest.approx(1.0)
