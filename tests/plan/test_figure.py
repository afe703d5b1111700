"""What the figure of a plan shows: two curves over the sizes, and the planned picture on them."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import pytest
import torch
from figure_contents import curves, figure_of, legend, ticks
from plan_cases import job, plan

from clear_attention.plan.cost import Cost
from clear_attention.plan.figure import CLEAR, FULL, draw
from clear_attention.plan.report import Plan
from clear_attention.units import GIB

EDGES = (512, 1024, 2048, 4096, 8192)
WEIGHTS_GIB, AVAILABLE_GIB = 3, 24
# 40 x 30 tokens of 16 pixels are as many as in a square of this edge.
PLANNED_PX = 16 * 1200**0.5


def made_up(seconds: float, memory_gib: float) -> Cost:
    return Cost(0, 0, 0, seconds, round(memory_gib * GIB), 0)


SIZES = {
    edge: (made_up(4.0**number, 2.0**number), made_up(2.0**number, 1.5**number))
    for number, edge in enumerate(EDGES)
}


@pytest.fixture(scope="module")
def planned() -> Plan:
    made = plan(call=job(40, 30))
    budget = dataclasses.replace(
        made.budget, weights=WEIGHTS_GIB * GIB, available=AVAILABLE_GIB * GIB
    )
    costs = {"full": made_up(0.7, 0.5), "clear": made_up(0.3, 0.25)}
    return dataclasses.replace(made, budget=budget, **costs)


@pytest.fixture(scope="module")
def figure(planned):
    with patch.object(Plan, "over_sizes", lambda self: SIZES):
        return figure_of(draw, planned)


def test_seconds_over_the_edge_are_those_of_each_attention(figure):
    full, clear, *_ = curves(figure.axes[0])
    assert full == ("full attention", FULL, [(e, each.seconds) for e, (each, _) in SIZES.items()])
    assert clear == ("CLEAR", CLEAR, [(e, each.seconds) for e, (_, each) in SIZES.items()])
    assert figure.axes[0].get_title() == "Seconds per step"


def test_memory_over_the_edge_includes_the_weights(figure):
    full, clear, *_ = curves(figure.axes[1])
    assert full == (
        "full attention",
        FULL,
        [(e, each.memory / GIB + WEIGHTS_GIB) for e, (each, _) in SIZES.items()],
    )
    assert clear == (
        "CLEAR",
        CLEAR,
        [(e, each.memory / GIB + WEIGHTS_GIB) for e, (_, each) in SIZES.items()],
    )
    assert figure.axes[1].get_title() == "GiB at the peak of a step, weights included"


@pytest.mark.parametrize(
    ("panel", "full", "clear"),
    [(0, 0.7, 0.3), (1, WEIGHTS_GIB + 0.5, WEIGHTS_GIB + 0.25)],
    ids=["seconds", "memory"],
)
def test_diamonds_mark_the_planned_picture(figure, panel, full, clear):
    label, _, vertical = curves(figure.axes[panel])[2]
    assert label == "the planned picture"
    assert [x for x, _ in vertical] == pytest.approx([PLANNED_PX] * 2)
    marks = [(line.get_marker(), *line.get_xydata()[0]) for line in figure.axes[panel].lines[3:5]]
    assert marks == [
        ("D", pytest.approx(PLANNED_PX), pytest.approx(full)),
        ("D", pytest.approx(PLANNED_PX), pytest.approx(clear)),
    ]
    assert [colour for _, colour, _ in curves(figure.axes[panel])[3:5]] == [FULL, CLEAR]


def test_only_memory_has_the_line_of_what_is_available(figure):
    seconds, memory = (axes.lines[5:] for axes in figure.axes)
    (line,) = memory
    assert len(seconds) == 0 and line.get_label() == "available"
    assert line.get_ydata() == [AVAILABLE_GIB] * 2


def test_both_panels_have_logarithmic_axes_with_the_edges_as_ticks(figure):
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert ticks(axes.xaxis) == {edge: str(edge) for edge in EDGES}
        assert axes.get_xlabel() == "edge of a square picture in pixels"


def test_the_legend_and_the_title_say_what_is_compared(figure):
    entries = legend(figure)
    assert list(entries) == ["full attention", "CLEAR", "the planned picture", "available"]
    assert [entries[name].get_color() for name in ("full attention", "CLEAR")] == [FULL, CLEAR]
    assert figure.get_suptitle() == "A small FLUX; cpu"


def test_the_figure_becomes_a_picture(planned, monkeypatch):
    monkeypatch.setattr(Plan, "over_sizes", lambda self: SIZES)
    picture = draw(planned)
    assert picture.shape == (506, 1265, 3) and picture.dtype == torch.float32
    assert 0 <= picture.min() < picture.max() <= 1
