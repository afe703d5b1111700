"""What people read of a choice of radii: its table and its figure."""

from __future__ import annotations

import pytest
import torch
from figure_contents import figure_of, ticks
from locality_cases import BLOCKS

from clear_attention import TokenLayout
from clear_attention.locality.choose import Cost, choose_radii
from clear_attention.locality.chosen import chosen_lines
from clear_attention.locality.errors import WindowErrors, candidate_radii
from clear_attention.locality.figure import draw
from clear_attention.locality.measure import covering_radius
from clear_attention.locality.report import LocalityReport

LAYOUT = TokenLayout(3, 9, 8)
RADII = candidate_radii(covering_radius(LAYOUT))


def cost(scale, power, layout=LAYOUT):
    radii = candidate_radii(covering_radius(layout))
    curve = [scale * radius**-power for radius in radii[:-1]]
    return Cost(WindowErrors(radii, torch.tensor([*curve, 0.0]).double(), 4.0), layout)


COSTS = {"double 0": cost(1.0, 4.0), "double 1": cost(2.0, 1.0), "single 0": cost(0.5, 3.0)}
CHOICE = choose_radii(COSTS, 0.5)
REPORT = LocalityReport(BLOCKS, 0.9, 5, choice=CHOICE, seconds=(4.0, 2.5))


def test_the_table_has_each_radius_its_error_and_that_of_one_radius():
    lines = REPORT.table().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("Chosen for 0.5"))
    assert f"{CHOICE.share:.1%} of the pairs remain" in lines[start]
    assert "CLEAR Plan expects 2.5 s for a call of the model, and 4 s with full" in lines[start + 1]
    rows = {line[:8]: line[8:].split() for line in lines[start:]}
    one = CHOICE.one_radius
    for name, each in COSTS.items():
        radius = CHOICE.radii[name]
        part = each.error(radius) / CHOICE.error_of(CHOICE.radii)
        before = each.error(one) / CHOICE.error_of(dict.fromkeys(COSTS, one))
        assert rows[name] == [
            *(str(radius), f"{(each.error(radius) / 4) ** 0.5:.1%}", f"({part:.0%})"),
            *(f"{(each.error(one) / 4) ** 0.5:.1%}", f"({before:.0%})"),
        ]
    assert f"one radius of {one} for all blocks makes an error" in lines[-1]
    assert f"{CHOICE.gain**-0.5:.2f} times as large" in lines[-1]


def test_without_a_plan_no_seconds_are_made_up():
    assert not any("CLEAR Plan" in line for line in chosen_lines(CHOICE))


def test_blocks_that_are_alike_win_nothing_and_the_table_says_so():
    alike = choose_radii(dict.fromkeys(("double 0", "double 1"), cost(1.0, 2.0)), 0.5)
    assert "is as good." in chosen_lines(alike)[-1]


def test_the_table_says_where_nothing_is_left_to_gain():
    whole = choose_radii(COSTS, 1.0)
    assert chosen_lines(whole)[-1].startswith("Nothing is left to gain")
    assert not any("Nothing is left" in line for line in chosen_lines(CHOICE))


def test_the_table_says_which_budget_cannot_be_reached():
    text = choose_radii({"joint 0": cost(1.0, 1.0, TokenLayout(200, 5, 5))}, 0.1)
    assert "A budget of 0.1 cannot be reached: radius 1 needs 0.98" in chosen_lines(text)[-1]


@pytest.fixture(scope="module")
def figure():
    return figure_of(draw, REPORT)


def test_below_the_masses_are_the_errors_of_each_radius_and_the_chosen_radii(figure):
    above, below = figure.subfigs
    left = below.axes[0]
    mesh = next(each for each in left.collections if each.get_array() is not None)
    errors = [[each.error(radius) for radius in range(1, 12)] for each in COSTS.values()]
    least = 2.0 / 10**4
    expected = torch.tensor(errors).clamp(least)
    torch.testing.assert_close(torch.tensor(mesh.get_array()).float(), expected)
    assert mesh.get_clim() == (pytest.approx(least), 2.0)
    dots = left.collections[-1].get_offsets().tolist()
    assert dots == [[radius, row] for row, radius in enumerate(CHOICE.radii.values())]
    assert [float(x) for x in left.lines[0].get_xdata()] == [CHOICE.one_radius] * 2
    assert ticks(left.yaxis) == {0: "double 0", 1: "double 1", 2: "single 0"}
    assert [text.get_text() for text in below.legends[0].get_texts()] == [
        f"one radius for the same work: {CHOICE.one_radius}",
        f"chosen: {CHOICE.share:.1%} of full attention's work",
    ]
    assert above.axes[0].get_title() == "Share of an image token's attention that CLEAR keeps"


def test_the_right_panel_has_each_block_s_part_before_and_after(figure):
    right = figure.subfigs[1].axes[1]
    before, after = ([bar.get_width() for bar in each] for each in right.containers)
    one = CHOICE.one_radius
    whole = CHOICE.error_of(dict.fromkeys(COSTS, one))
    assert before == pytest.approx([each.error(one) / whole for each in COSTS.values()])
    assert sum(after) == pytest.approx(CHOICE.gain)
    assert right.get_title() == f"Errors together: {CHOICE.gain:.0%}"
