"""Which backend is taken, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_cases import Case

from clear_attention import Queries, TokenLayout, read_mask
from clear_attention.backends import BACKENDS, choose, choose_name
from clear_attention.backends.call import Call
from clear_attention.masks import general_mask


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


def test_a_mask_over_the_picture_keeps_a_large_grid_from_being_tiled():
    mask = torch.zeros(1, 1, 1, 1)
    assert choose_name(queries(LARGE), call(LARGE, general_mask(mask, LARGE.layout))) == "masked"


def test_a_mask_over_text_does_not():
    seen = torch.arange(LARGE.layout.tokens) != 1
    assert choose_name(queries(LARGE), call(LARGE, read_mask(seen, LARGE.layout))) == "tiled"


def test_queries_without_pictures_are_one_plain_call():
    asked = replace(call(LARGE), queries=Queries(rows=0))
    assert choose_name(queries(LARGE), asked) == "masked"
    assert BACKENDS["masked"].footprint(queries(LARGE)[:, :, :4], asked).pairs == 4 * (4 + 128**2)


@pytest.mark.parametrize("name", ("masked", "tiled", "flex", "reference"))
def test_a_backend_is_taken_by_name(name):
    assert choose(queries(LARGE), call(LARGE), name) is BACKENDS[name]


@pytest.mark.parametrize("name", ["reference", "flex"])
def test_slow_backends_are_taken_by_name_only(name):
    backend = BACKENDS[name]
    assert backend.why_not(queries(SMALL), call(SMALL)) is None
    assert backend.why_not_auto(queries(SMALL), call(SMALL))
