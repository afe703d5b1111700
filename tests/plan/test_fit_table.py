"""The README's table "Will it fit my card?" against the plan that calculates it."""

from __future__ import annotations

from dataclasses import replace

import plan_cases
import pytest
import torch

from clear_attention import TokenLayout, Window
from clear_attention.families.network import Job
from clear_attention.plan.cost import cost
from clear_attention.plan.report import Plan
from tools import fit_table


def plan_of(card_gib, weights, edge_px):
    """Plan the same step without measuring this machine: only the memory counts."""
    tokens = edge_px // 16
    job = Job(TokenLayout(256, tokens, tokens), Window(16), backend="tiled")
    machine = plan_cases.machine(dtype=torch.bfloat16)
    step = cost(fit_table.FLUX_DEV, job, torch.bfloat16, plan_cases.CPU)
    budget = fit_table.budget(card_gib, weights, edge_px)
    names = dict(title="FLUX", steps=20, token_px=16, rates=plan_cases.RATES)
    return Plan(
        network=fit_table.FLUX_DEV, job=job, machine=machine, budget=budget,
        full=step, clear=step, **names,
    )  # fmt: skip


def test_the_readme_has_the_table_that_the_plan_calculates():
    text = fit_table.README.read_text(encoding="utf-8")
    between = text.split(fit_table.START)[1].split(fit_table.END)[0]
    assert between.strip() == fit_table.table(), "run python3 tools/fit_table.py"


@pytest.mark.parametrize("edge_px", fit_table.EDGES_PX)
@pytest.mark.parametrize("card_gib", fit_table.CARDS_GIB)
def test_a_cell_says_what_the_plan_says(card_gib, edge_px):
    for weights in fit_table.WEIGHTS:
        plan = plan_of(card_gib, weights, edge_px)
        words = fit_table.cell(card_gib, weights, edge_px)
        assert (words == "no") == (plan.verdict == "too large")
        assert "slices" in words or "slice" not in plan.verdict
        fetched = any("Not all weights fit" in line for line in plan.advice())
        sliced = replace(plan, slice_tokens=0)
        if words in ("yes", "streams"):
            assert fetched == (words == "streams")
        elif words != "no":
            waits = any("Not all weights fit" in line for line in sliced.advice())
            assert waits == ("streams" in words)


def test_tiles_begin_where_the_plan_asks_for_them():
    for card in (fit_table.CARDS_GIB[0], fit_table.CARDS_GIB[-1]):
        edge = fit_table.tiles_from(card)
        assert "tile" in plan_of(card, "fp8", edge).verdict
        assert "tile" not in plan_of(card, "fp8", edge - 256).verdict
