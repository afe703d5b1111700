"""The Triton backend where a band of the grid's rows asks, as one of several GPUs does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from attention_cases import Case
from hypothesis import assume, given, settings

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

from interpreted import SHAPES, interpreted
from part_cases import Asked, asked_calls

from clear_attention import Queries, TokenLayout, attention
from clear_attention.backends import BACKENDS
from clear_attention.backends.call import Call

# Sums of some hundred float32 terms of size 1, in another order; gradients are sums of these.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}
NOTHING_ELSE = {"text": False, "extra": False}
LAYOUT = TokenLayout(3, 13, 19, extra=2)
CASE = Case(LAYOUT, radius=3, heads=1)


def padding(layout: TokenLayout) -> torch.Tensor:
    """Return a mask that hides a text and an extra token from all, and has rows for text."""
    mask = torch.zeros(1, 1, layout.tokens, layout.tokens)
    mask[..., 1] = mask[..., -1] = -torch.inf
    mask[:, :, 0, 5:20] = -1
    return mask


# The tiles are of 4 x 8 or of 8 x 8 tokens.
CALLS = {
    "between tiles": (Asked(CASE, Queries(**NOTHING_ELSE, first_row=3, rows=6), 1, None), "small"),
    "one row, wrapped twice": (
        Asked(replace(CASE, wraps=(True, True)), Queries(first_row=12, rows=1), 1, None),
        "square",
    ),
    "the first rows, wrapped downwards": (
        Asked(replace(CASE, wraps=(True, False)), Queries(**NOTHING_ELSE, rows=2), 1, None),
        "square",
    ),
    "pooled, without text": (
        Asked(replace(CASE, factor=4), Queries(text=False, first_row=1, rows=9), 1, None),
        "square",
    ),
    "grouped, padded, a batch": (
        Asked(
            Case(TokenLayout(3, 9, 9, extra=1), radius=2, batch=2, heads=1, wraps=(False, True)),
            Queries(first_row=5),
            2,
            padding(TokenLayout(3, 9, 9, extra=1)),
        ),
        "square",
    ),
}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fill what nobody writes with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", CALLS)
def test_a_band_matches_the_whole_and_so_do_its_gradients(name):
    asked, shape = CALLS[name]
    tensors = [x.requires_grad_() for x in asked.tensors()]
    with interpreted(SHAPES[shape]):
        found = asked.compute(*tensors, "triton")
        grads = torch.autograd.grad(found[0].square().sum(), tensors)
    expected = asked.specify(*(x.double() for x in tensors))
    exact = torch.autograd.grad(expected[0].square().sum(), tensors)
    for one, other in zip((*found, *grads), (*expected, *exact), strict=True):
        torch.testing.assert_close(one.double(), other.double(), **TOLERANCE)


@settings(max_examples=4)
@given(asked_calls(("padding",), head_dim=16, heads=1, batch=1, dtype=torch.float32))
def test_any_part_with_rows_matches_the_whole(asked):
    q, k, v = asked.tensors()
    assume(BACKENDS["triton"].why_not(q, asked_call(asked.case, asked.queries)) is None)
    asked = replace(asked, mask=None if asked.mask is None else asked.mask.float())
    with interpreted():
        found = asked.compute(q, k, v, "triton")
    for one, other in zip(found, asked.specify(q, k, v), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def asked_call(case: Case, queries: Queries) -> Call:
    return Call(*case.geometry, None, 1.0, queries=queries)


@pytest.mark.parametrize("cuts", [(6,), (3, 4)], ids=["two", "three, one of a single row"])
def test_bands_with_a_halo_are_the_whole(cuts):
    """As several GPUs compute a picture: each has its rows and those that its windows reach."""
    layout, window = CASE.geometry
    q, k, v = CASE.tensors()
    bands = []
    for start, stop in zip((0, *cuts), (*cuts, layout.height), strict=True):
        held = range(max(0, start - window.reach), min(layout.height, stop + window.reach))
        keys = Queries(first_row=held.start, rows=len(held))
        own = Queries(**NOTHING_ELSE, first_row=start, rows=stop - start)
        local = replace(layout, height=len(held))
        with interpreted(SHAPES["square"]):
            out = attention(
                *(own.of(q, layout), keys.of(k, layout), keys.of(v, layout), local, window),
                queries=replace(own, first_row=start - held.start),
                backend="triton",
            )
        bands.append(out)
    whole = attention(q, k, v, layout, window, backend="reference")[:, :, layout.image_slice]
    torch.testing.assert_close(torch.cat(bands, 2), whole, **TOLERANCE)


def test_rows_beyond_the_halo_are_not_read():
    layout, window = CASE.geometry
    asked = Queries(**NOTHING_ELSE, first_row=6, rows=3)
    q, k, v = CASE.tensors()
    expected = attention(
        asked.of(q, layout), k, v, layout, window, queries=asked, backend="reference"
    )
    for x in (k, v):
        rows = x[:, :, layout.image_slice].unflatten(2, (layout.height, layout.width))
        rows[:, :, : 6 - window.reach] = rows[:, :, 9 + window.reach :] = torch.nan
    with interpreted(SHAPES["square"]):
        found = attention(
            asked.of(q, layout), k, v, layout, window, queries=asked, backend="triton"
        )
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_bands_stay_one_graph_in_a_compiled_model():
    layout, window = CASE.geometry
    asked = Queries(**NOTHING_ELSE, first_row=10, rows=2)

    def model(q, k, v):
        return attention(2 * q, k, v, layout, window, queries=asked, backend="triton")

    q, k, v = CASE.tensors()
    with interpreted(), torch.no_grad():
        expected = model(asked.of(q, layout), k, v)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(asked.of(q, layout), k, v), expected)


def test_eight_bits_take_all_rows_only():
    band = asked_call(CASE, Queries(first_row=1))
    q = torch.empty(1, 1, band.queries.tokens(LAYOUT), 64, dtype=torch.float16)
    assert BACKENDS["triton"].why_not(q, band) is None
    said = "its queries are all rows of the picture, not some of them"
    assert BACKENDS["triton_int8"].why_not(q, band) == said
