"""What windows cost: errors of one pass against the reference backend, radius by radius."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import TokenLayout, Window, attention
from clear_attention.locality import measure as locality_module
from clear_attention.locality.errors import ErrorSum, WindowErrors, candidate_radii
from clear_attention.locality.measure import covering_radius, measure_locality, spread_queries

layouts = st.builds(
    TokenLayout,
    text=st.integers(0, 4),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    extra=st.integers(0, 3),
)


def random_qkv(layout, batch=1, heads=2, depth=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, layout.tokens, depth)
    return [2 * torch.randn(shape, generator=generator, dtype=dtype) for _ in "qkv"]


def all_radii(layout):
    return tuple(range(1, covering_radius(layout) + 1))


def summed(q, k, v, layout, radii=None, **given):
    errors = ErrorSum(v, layout, radii or all_radii(layout))
    measure_locality(q, k, layout, watcher=errors, **given)
    return errors


def changes_of(q, k, v, layout, radius, rows=None, **given):
    """Return by how much a window changes the image's output, as the specification has it."""
    q, k, v = (x.double() for x in (q, k, v))
    outs = [
        attention(q, k, v, layout, window, backend="reference", **given)[:, :, layout.image_slice]
        for window in (Window(radius), Window(covering_radius(layout)))
    ]
    change = (outs[0] - outs[1]).transpose(1, 2).flatten(2)
    whole = outs[1].transpose(1, 2).flatten(2)
    return (change, whole) if rows is None else (change[:, rows], whole[:, rows])


def squared(change):
    return float(change.square().sum(-1).mean())


@given(layout=layouts, batch=st.integers(1, 2), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_errors_of_all_radii_are_those_of_the_reference(layout, batch, heads, seed):
    q, k, v = random_qkv(layout, batch, heads, seed=seed)
    found = summed(q, k, v, layout, scale=0.7).errors()
    for radius, error in zip(found.radii, found.squared.tolist(), strict=True):
        change, whole = changes_of(q, k, v, layout, radius, scale=0.7)
        assert error == pytest.approx(squared(change), rel=1e-9, abs=1e-20)
        assert found.output == pytest.approx(squared(whole), rel=1e-9)
        relative = (squared(change) / squared(whole)) ** 0.5
        assert found.relative(radius) == pytest.approx(relative, rel=1e-9, abs=1e-12)


@given(layout=layouts, seed=st.integers(0, 99))
def test_the_covering_radius_changes_nothing(layout, seed):
    found = summed(*random_qkv(layout, seed=seed), layout).errors()
    assert found.radii[-1] == covering_radius(layout)
    assert found.squared[-1] == 0.0
    assert found.in_model(found.radii[-1]) == found.in_model(10**6) == 0.0


@pytest.mark.parametrize("queries", [1, 5, 29, 63])
def test_a_choice_of_queries_is_measured_exactly(queries):
    layout = TokenLayout(4, 9, 7, extra=2)
    q, k, v = random_qkv(layout, batch=2)
    rows = spread_queries(layout, queries, seed=3)
    errors = summed(q, k, v, layout, queries=queries, seed=3)
    tokens, changes = errors.changes()
    assert tokens.equal(rows)
    hidden = range(1, covering_radius(layout))  # the radii that change something
    expected = torch.stack([changes_of(q, k, v, layout, radius, rows)[0] for radius in hidden])
    for error, change in zip(errors.errors().squared.tolist(), expected, strict=False):
        assert error == pytest.approx(squared(change))
    is_that_of = torch.isclose(changes, expected).all(-1).all(1)  # [radii, queries]
    assert is_that_of.any(0).all()  # each query's change is that of one radius
    if queries == layout.image:
        assert is_that_of.any(1).all()  # and all radii are shown


@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_a_mask_hides_keys_from_both_sides_of_the_comparison(kind):
    layout = TokenLayout(3, 5, 4, extra=2)
    q, k, v = random_qkv(layout, batch=2)
    generator = torch.Generator().manual_seed(7)
    mask = torch.rand(layout.tokens, layout.tokens, generator=generator) < 0.6
    mask[:, 0] = True
    if kind == "additive":
        mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        mask += torch.randn(mask.shape, generator=generator, dtype=q.dtype)
    found = summed(q, k, v, layout, mask=mask).errors()
    for radius, error in zip(found.radii, found.squared.tolist(), strict=True):
        change, _ = changes_of(q, k, v, layout, radius, mask=mask)
        assert error == pytest.approx(squared(change), rel=1e-9, abs=1e-20)


def test_a_window_of_which_a_mask_hides_everything_shows_nothing():
    layout = TokenLayout(0, 4, 4)
    q, k, v = random_qkv(layout)
    found = summed(q, k, v, layout, mask=~torch.eye(16, dtype=torch.bool)).errors()
    assert float(found.squared[0]) == pytest.approx(found.output)


def test_some_of_the_queries_are_enough_where_that_is_wanted():
    layout = TokenLayout(4, 9, 7)
    q, k, v = random_qkv(layout)
    errors = ErrorSum(v, layout, all_radii(layout), every=2)
    measure_locality(q, k, layout, watcher=errors)
    rows = torch.arange(0, layout.image, 2)
    assert errors.changes()[0].equal(rows)
    change, whole = changes_of(q, k, v, layout, 3, rows)
    assert float(errors.errors().squared[2]) == pytest.approx(squared(change))
    assert errors.errors().output == pytest.approx(squared(whole))


def test_chunks_add_up(monkeypatch):
    layout = TokenLayout(6, 12, 11)
    q, k, v = random_qkv(layout)
    whole = summed(q, k, v, layout)
    monkeypatch.setattr(locality_module, "PLAIN_SCORES", 2**11)
    chunked = summed(q, k, v, layout)
    torch.testing.assert_close(chunked.errors().squared, whole.errors().squared)
    assert chunked.errors().output == pytest.approx(whole.errors().output)
    for one, other in zip(chunked.changes(), whole.changes(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    layout = TokenLayout(7, 9, 8)
    q, k, v = random_qkv(layout, depth=32, dtype=dtype)
    found = summed(q, k, v, layout).errors()
    for radius in (1, 4, 9):
        change, _ = changes_of(q, k, v, layout, radius)
        assert found.in_model(radius) == pytest.approx(squared(change), rel=1e-4)


@given(st.integers(1, 400))
def test_candidates_are_two_to_an_octave_and_end_with_the_one_that_covers(covering):
    radii = candidate_radii(covering)
    assert radii[0] == 1 and radii[-1] == covering
    assert list(radii) == sorted(set(radii))
    assert all(high <= max(low + 1, 1.5 * low) for low, high in itertools.pairwise(radii))


CURVE = WindowErrors((1, 2, 4, 8, 16), torch.tensor([16.0, 8.0, 2.0, 0.5, 0.0]).double(), 32.0)


def test_between_measured_radii_errors_follow_a_power_and_end_in_a_line_to_nothing():
    assert [CURVE.in_model(radius) for radius in (1, 2, 4, 8, 16, 99)] == [16, 8, 2, 0.5, 0, 0]
    assert CURVE.in_model(3) == pytest.approx(8 * (3 / 2) ** -2)
    assert CURVE.in_model(6) == pytest.approx(2 * (6 / 4) ** -2)
    assert CURVE.in_model(12) == pytest.approx(0.25)
    assert CURVE.relative(2) == pytest.approx(0.5)


def test_the_response_of_the_block_scales_all_errors():
    gained = WindowErrors(CURVE.radii, CURVE.squared, CURVE.output, gain=3.0)
    assert gained.in_model(4) == 6.0
    assert gained.output_in_model == 96.0
    assert gained.relative(2) == CURVE.relative(2)


def test_measurements_are_averaged_and_only_those_with_a_response_give_one():
    small = WindowErrors((1, 2, 4), torch.tensor([4.0, 2.0, 0.0]).double(), 8.0, gain=5.0)
    mean = WindowErrors.mean([CURVE, small, small])
    assert mean.radii == CURVE.radii
    assert mean.squared.tolist() == pytest.approx([8.0, 4.0, 2 / 3, 0.5 / 3, 0.0])
    assert (mean.output, mean.gain) == (16.0, 5.0)
    assert WindowErrors.mean([CURVE, CURVE]).gain is None
