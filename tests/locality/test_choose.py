"""A radius per block: against all combinations, within the budget, and no more than helps."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_attention import TokenLayout
from clear_attention.locality.choose import NEGLIGIBLE, Cost, choose_radii
from clear_attention.locality.errors import WindowErrors, candidate_radii
from clear_attention.locality.measure import covering_radius

LAYOUT = TokenLayout(3, 9, 8, extra=1)
RADII = candidate_radii(covering_radius(LAYOUT))


def cost_of(errors, layout=LAYOUT, width=1, output=1.0, gain=None):
    radii = candidate_radii(covering_radius(layout))
    assert len(errors) == len(radii) - 1
    curve = torch.tensor([*errors, 0.0], dtype=torch.float64)
    return Cost(WindowErrors(radii, curve, output, gain), layout, width)


def falling(scale, power, layout=LAYOUT, **more):
    radii = candidate_radii(covering_radius(layout))
    return cost_of([scale * radius**-power for radius in radii[:-1]], layout, **more)


curves = st.lists(st.floats(0.0, 1.0), min_size=len(RADII) - 1, max_size=len(RADII) - 1)
falling_curves = curves.map(lambda errors: sorted(errors, reverse=True))
models = st.lists(falling_curves, min_size=1, max_size=3)
budgets = st.floats(0.05, 1.0)


def best_of_all(costs, budget):
    """Return the least error that measured radii can have within a budget, over all of them."""
    full = sum(cost.full for cost in costs.values())
    return min(
        (
            sum(cost.error(radius) for cost, radius in zip(costs.values(), radii, strict=True))
            for radii in itertools.product(RADII, repeat=len(costs))
            if sum(cost.work(radius) for cost, radius in zip(costs.values(), radii, strict=True))
            <= budget * full
        ),
        default=None,
    )


@settings(max_examples=60)
@given(model=models, budget=budgets)
def test_the_choice_is_as_good_as_the_best_of_all_but_for_one_step(model, budget):
    costs = {f"joint {index}": cost_of(errors) for index, errors in enumerate(model)}
    best = best_of_all(costs, budget)
    choice = choose_radii(costs, budget)
    if best is None:
        assert not choice.reached
        return
    assert choice.reached
    step = max(errors[0] for errors in model)  # no step of the hull removes more
    steps = [
        cost.error(low) - cost.error(high)
        for cost in costs.values()
        for low, high in itertools.combinations(RADII, 2)
    ]
    assert choice.error_of(choice.radii) <= best + min(step, max(steps)) + 1e-9


def test_convex_errors_are_chosen_best_of_all():
    """Where errors fall as the disc grows, and the budget ends where a step does."""
    costs = {f"joint {index}": falling(5.0**index, 3) for index in range(4)}
    for radii in ((1, 1, 2, 3), (2, 3, 4, 6), (3, 4, 6, 8)):
        share = choose_radii(costs, 1.0).share_of(dict(zip(costs, radii, strict=True)))
        choice = choose_radii(costs, share)
        assert choice.error_of(choice.radii) <= best_of_all(costs, share) * (1 + 1e-9)


@given(model=models, budgets=st.tuples(budgets, budgets))
def test_a_larger_budget_never_has_a_larger_error(model, budgets):
    costs = {f"joint {index}": cost_of(errors) for index, errors in enumerate(model)}
    less, more = (choose_radii(costs, budget) for budget in sorted(budgets))
    assert more.error_of(more.radii) <= less.error_of(less.radii) + 1e-12


@pytest.mark.parametrize("blocks", [2, 5, 57])
@pytest.mark.parametrize("budget", [0.1, 0.25, 0.5, 0.9])
def test_a_budget_is_used_within_a_tenth_and_never_exceeded(blocks, budget):
    layout = TokenLayout(32, 24, 24)
    costs = {
        f"single {index}": falling(1 + index % 7, 0.5 + index % 3, layout)
        for index in range(blocks)
    }
    choice = choose_radii(costs, budget)
    if budget < choice.share_of(dict.fromkeys(costs, 1)):
        assert not choice.reached and set(choice.radii.values()) == {1}
    else:
        assert 0.9 * budget <= choice.share <= budget


@given(model=models, budget=budgets)
def test_no_block_gets_a_larger_radius_that_gains_nothing(model, budget):
    costs = {f"joint {index}": cost_of(errors) for index, errors in enumerate(model)}
    for name, radius in choose_radii(costs, budget).radii.items():
        assert (
            radius == 1
            or costs[name].error(radius) < costs[name].error(radius - 1)
            or (costs[name].error(radius) < costs[name].error(1))
        )


def test_a_flat_block_stays_small_and_one_that_pays_for_it_sees_everything():
    flat, steep = cost_of([1e-3] * (len(RADII) - 1)), cost_of([9.0] * (len(RADII) - 1))
    choice = choose_radii({"joint 0": flat, "joint 1": steep}, 0.65)
    assert choice.radii == {"joint 0": 1, "joint 1": covering_radius(LAYOUT)}
    assert not choice.enough


def test_nothing_is_recommended_when_nothing_is_left_to_gain():
    tiny = [NEGLIGIBLE / 2] * (len(RADII) - 1)
    choice = choose_radii({"joint 0": cost_of(tiny), "joint 1": cost_of(tiny)}, 0.9)
    assert choice.enough and choice.reached
    assert set(choice.radii.values()) == {1}
    large = [9.0, 3.0, 1.0, *[NEGLIGIBLE / 2] * (len(RADII) - 4)]
    choice = choose_radii({"joint 0": cost_of(large)}, 1.0)
    assert choice.enough and choice.radii == {"joint 0": RADII[3]}


def test_a_budget_that_text_alone_exceeds_is_not_reached():
    layout = TokenLayout(200, 5, 5)
    choice = choose_radii({"joint 0": falling(1.0, 1, layout)}, 0.1)
    assert not choice.reached and choice.share > 0.9 and choice.radii == {"joint 0": 1}


def test_one_radius_for_the_same_work_is_the_largest_that_costs_no_more():
    costs = {"joint 0": falling(1.0, 2), "joint 1": falling(40.0, 2)}
    choice = choose_radii(costs, 0.4)
    one = choice.one_radius
    assert choice.share_of(dict.fromkeys(costs, one)) <= choice.share
    assert choice.share_of(dict.fromkeys(costs, one + 1)) > choice.share
    assert choice.radii["joint 0"] < one < choice.radii["joint 1"]
    before = choice.error_of(dict.fromkeys(costs, one))
    assert choice.gain == pytest.approx(choice.error_of(choice.radii) / before)
    assert choice.gain < 1


def test_wider_heads_and_their_responses_weigh_more():
    """A block whose pairs cost four times as much must gain four times as much."""
    alike = {"joint 0": falling(1.0, 2), "joint 1": falling(1.0, 2)}
    even = choose_radii(alike, 0.5).radii
    assert abs(even["joint 0"] - even["joint 1"]) <= 3
    wide = choose_radii({**alike, "joint 1": falling(1.0, 2, width=16)}, 0.5).radii
    assert wide["joint 1"] < wide["joint 0"]
    responds = choose_radii({**alike, "joint 1": falling(1.0, 2, gain=50.0)}, 0.5).radii
    assert responds["joint 1"] > responds["joint 0"]


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5])
def test_budgets_that_are_none_are_refused(budget):
    with pytest.raises(ValueError, match=f"budget above 0, at most 1, got 1 blocks and {budget}"):
        choose_radii({"joint 0": falling(1.0, 2)}, budget)
    with pytest.raises(ValueError, match="got 0 blocks"):
        choose_radii({}, 0.5)
