"""Attention of several ranks: what one computes, in float64 to the last bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_cases import Case
from hypothesis import given, settings
from rank_cases import CPU, Shared, shared_calls

from clear_attention import Pooling, Queries, TokenLayout, Window
from clear_attention.parallel import attention as parallel_attention
from clear_attention.parallel.attention import Seat, attend, call_of
from clear_attention.parallel.local import Board, LocalTransport
from clear_attention.parallel.partition import Partition, share_out

LIMIT = 1e-12  # of float64: sums of some hundred terms of size 1

ROWS = Partition(13, 6, (0, 6, 8, 13), extra=(1, 3, 4, 6))
COLUMNS = replace(ROWS, height=6, width=13, columns=True)
POOLED = Partition(6, 13, (0, 6, 9, 13), columns=True, extra=(0, 0, 0, 2))


def call(partition, *, text=5, extra=7, groups=2, full=False, **fixed):
    """Return a call whose layout has the partition's grid."""
    layout = TokenLayout(text, partition.height, partition.width, extra)
    case = replace(Case(layout, radius=3, dtype=torch.float64), **fixed)
    return Shared(case, partition, groups, full)


NAMED = {
    "rows": call(ROWS),
    "columns": call(COLUMNS),
    "columns that wrap around vertically": call(COLUMNS, wraps=(True, False)),
    "columns that wrap around horizontally": call(COLUMNS, wraps=(False, True)),
    "a halo from both ends": call(ROWS, radius=4, wraps=(True, True)),
    "no text": call(ROWS, text=0),
    "no token of its own": call(ROWS, radius=1, scale=0.5),
    "full attention": call(COLUMNS, full=True),
    "a window of the whole picture": call(ROWS, radius=30),
    "pooled cells": call(POOLED, factor=3, batch=2),
}
named = pytest.mark.parametrize("shared", NAMED.values(), ids=NAMED.keys())


def assert_is_the_whole(shared, outs, limit=LIMIT):
    """Assert that each rank has its part of the whole."""
    whole = shared.whole()
    for rank, out in enumerate(outs):
        expected = shared.of(whole, rank)
        assert (out.dtype, out.shape) == (expected.dtype, expected.shape)
        assert float((out - expected).abs().max()) < limit


@named
@pytest.mark.parametrize("backend", ["masked", "tiled"])
def test_the_ranks_compute_what_one_computes(backend, shared):
    outs, _ = shared.compute(backend)
    assert_is_the_whole(shared, outs)


@settings(max_examples=60)
@given(shared=shared_calls())
def test_any_partition_of_any_call_computes_the_whole(shared):
    outs, transports = shared.compute("masked")
    assert_is_the_whole(shared, outs)
    for rank, transport in enumerate(transports):
        assert transport.received == shared.received_bytes(rank)


@settings(max_examples=15)
@given(shared=shared_calls())
def test_each_rank_awaits_what_the_others_send(shared):
    _, transports = shared.compute("masked")
    for one in transports:
        for other in transports:
            if one is not other:
                sent = [plan.get(other.rank, []) for plan in one.sent]
                assert sent == [plan.get(one.rank, []) for plan in other.awaited]


@pytest.mark.parametrize("name", ["a halo from both ends", "pooled cells"])
def test_flex_computes_bands_too(name):
    shared = replace(NAMED[name], partition=replace(NAMED[name].partition, extra=()))
    outs, _ = shared.compute("flex")
    assert_is_the_whole(shared, outs)


@named
def test_everybody_has_the_same_bits_in_text_and_unshared_tokens(shared):
    outs, _ = shared.compute("masked")
    layout, partition = shared.case.layout, shared.partition
    for rank, out in enumerate(outs):
        assert torch.equal(out[:, :, : layout.text], outs[0][:, :, : layout.text])
        before, _, behind = partition.own_extra(rank, layout.extra)
        start = layout.text + partition.image(rank)
        first = layout.text + partition.image(0)
        assert torch.equal(
            out[:, :, start : start + len(before)], outs[0][:, :, first : first + len(before)]
        )
        assert torch.equal(
            out[:, :, out.shape[2] - len(behind) :], outs[0][:, :, outs[0].shape[2] - len(behind) :]
        )


@pytest.mark.parametrize("name", ["columns", "pooled cells"])
def test_a_second_run_has_the_same_bits(name):
    shared = NAMED[name]
    (one, _), (other, _) = shared.compute("tiled"), shared.compute("tiled")
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def rms(actual, exact):
    return float((actual.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", ["rows", "full attention", "pooled cells"])
def test_float32_differs_by_less_than_a_millionth(name):
    shared = replace(NAMED[name], case=replace(NAMED[name].case, dtype=torch.float32))
    outs, _ = shared.compute()
    exact = shared.whole(dtype=torch.float64)
    assert all(rms(out, shared.of(exact, rank)) < 1e-6 for rank, out in enumerate(outs))


@pytest.mark.parametrize("name", ["rows", "full attention", "pooled cells"])
def test_rounding_to_bfloat16_is_at_most_twice_that_of_another_backend(name):
    shared = replace(NAMED[name], case=replace(NAMED[name].case, dtype=torch.bfloat16))
    outs, _ = shared.compute("masked")
    exact, other = shared.whole(dtype=torch.float64), shared.whole("tiled")
    layout = shared.case.layout
    for rank, out in enumerate(outs):
        expected, one_device = shared.of(exact, rank), shared.of(other, rank)
        for part in (slice(layout.text), slice(layout.text, None)):
            allowed = 2 * rms(one_device[:, :, part], expected[:, :, part])
            assert rms(out[:, :, part], expected[:, :, part]) <= allowed


@named
def test_a_backend_is_chosen_for_the_call_that_it_gets(shared, monkeypatch):
    plain, calls = parallel_attention.attention, []

    def watched(q, k, v, layout, window, *, queries, scale, backend):
        calls.append((layout, window, queries, scale, q.shape[1] // k.shape[1]))
        return plain(q, k, v, layout, window, queries=queries, scale=scale, backend=backend)

    monkeypatch.setattr(parallel_attention, "attention", watched)
    shared.compute()
    q, k, _ = shared.tensors()
    scale = shared.case.scale or q.shape[-1] ** -0.5
    described = []
    for rank in range(shared.partition.size):
        seat = Seat(shared.partition, LocalTransport(Board(), rank, shared.partition.size, CPU))
        case = shared.case
        one = call_of(q, k, seat, case.layout, shared.window, case.pooling(), scale)
        described.append((one.layout, one.window, one.queries, one.scale, one.groups))
        assert (one.pooling, one.mask, one.trained) == (None, None, False)
    assert sorted(calls, key=str) == sorted(described, key=str)


def test_only_image_tokens_ask_where_the_halo_is():
    shared = call(ROWS, radius=3)
    seat = Seat(ROWS, LocalTransport(Board(), 1, 3, CPU))
    q, k, _ = shared.tensors()
    one = call_of(q, k, seat, shared.case.layout, Window(3), None, 1.0)
    assert one.layout == TokenLayout(5, 6, 6, 7)  # two lines of its own, two on either side
    assert one.queries == Queries(text=False, extra=False, first_row=2, rows=2)


def tensors_of(tokens, **kwargs):
    return [torch.zeros(1, 1, tokens, 8, **kwargs) for _ in range(3)]


LAYOUT = TokenLayout(2, 6, 4)
SEAT = Seat(share_out(6, 4, [1, 2]), LocalTransport(Board(), 0, 2, CPU))


def test_a_layout_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"layout must have the partition's grid of 6 x 4, got .*"):
        attend(*tensors_of(10), SEAT, TokenLayout(2, 4, 6), None)


@pytest.mark.parametrize("wrong", ["q", "k", "v"])
def test_tensors_with_another_ranks_tokens_are_refused(wrong):
    tensors = dict(zip("qkv", tensors_of(10), strict=True))
    tensors[wrong] = tensors_of(18)[0]
    with pytest.raises(ValueError, match=rf"{wrong} must hold the 10 tokens of rank 0, got 18\."):
        attend(**tensors, seat=SEAT, layout=LAYOUT, window=None)


def test_gradients_are_refused():
    with pytest.raises(ValueError, match=r"attend must run without gradients"):
        attend(*tensors_of(10, requires_grad=True), SEAT, LAYOUT, None)


def test_cuts_through_a_pooled_cell_are_refused():
    seat = Seat(Partition(6, 4, (0, 3, 6)), LocalTransport(Board(), 0, 2, CPU))
    with pytest.raises(ValueError, match=r"cuts must be multiples of the pooling factor 2, got \("):
        attend(*tensors_of(14), seat, LAYOUT, Window(2), pooling=Pooling(2))
