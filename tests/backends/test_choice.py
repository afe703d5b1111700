"""Which backend is taken, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from attention_cases import Case

from clear_attention import TokenLayout
from clear_attention.backends import BACKENDS, choose, choose_name
from clear_attention.backends.call import Call


def call(case, mask=None):
    layout, window = case.geometry
    return Call(layout, window, case.pooling(), scale=1.0, mask=mask)


def queries(case):
    return torch.empty(1, 1, case.layout.tokens, 8)


SMALL = Case(TokenLayout(4, 9, 9), radius=8)
LARGE = Case(TokenLayout(4, 128, 128), radius=8)


def test_small_grids_are_masked_and_large_ones_tiled():
    assert choose_name(queries(SMALL), call(SMALL)) == "masked"
    assert choose_name(queries(LARGE), call(LARGE)) == "tiled"


def test_a_mask_keeps_a_large_grid_from_being_tiled():
    mask = torch.zeros(1, 1, 1, 1)
    assert choose_name(queries(LARGE), call(LARGE, mask)) == "masked"


@pytest.mark.parametrize("name", ("masked", "tiled", "flex", "reference"))
def test_a_backend_is_taken_by_name(name):
    assert choose(queries(LARGE), call(LARGE), name) is BACKENDS[name]


@pytest.mark.parametrize("name", ["reference", "flex"])
def test_slow_backends_are_taken_by_name_only(name):
    backend = BACKENDS[name]
    assert backend.why_not(queries(SMALL), call(SMALL)) is None
    assert backend.why_not_auto(queries(SMALL), call(SMALL))
