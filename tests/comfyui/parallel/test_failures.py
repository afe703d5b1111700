"""Errors, interrupts and too little memory on any device: the host's own exceptions, at once."""

from __future__ import annotations

import threading
import time

import pytest
import torch

SECONDS = 5
PLACES = {"a block": "single_blocks.0", "the last layer": "final_layer", "the first": "img_in"}


class Broken(RuntimeError):
    """What a layer raises."""


def failing(rank, path, error, product, monkeypatch):
    """Make a layer of one rank fail in the second model call."""
    team = product("comfyui.parallel.team")
    original, calls = team.model_call, []

    def call(executor, family, geometry, one, seat, arguments):
        calls.append(seat.rank)
        if seat.rank != rank or calls.count(rank) < 2:
            return original(executor, family, geometry, one, seat, arguments)
        module = one.model.diffusion_model.get_submodule(path)
        handle = module.register_forward_pre_hook(lambda *_: fail(error))
        try:
            return original(executor, family, geometry, one, seat, arguments)
        finally:
            handle.remove()

    monkeypatch.setattr(team, "model_call", call)


def fail(error):
    raise error


def no_thread_is_left():
    return not [one for one in threading.enumerate() if one.name.startswith("CLEAR rank")]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("path", PLACES.values(), ids=list(PLACES))
def test_an_error_of_one_device_ends_the_run_and_the_next_is_right(
    rank, path, sample, flux_model, nodes, product, monkeypatch
):
    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu,cpu")
    expected = sample(model, steps=1)
    with monkeypatch.context() as patch:
        failing(rank, path, Broken("of a layer"), product, patch)
        begun = time.monotonic()
        with pytest.raises(Broken, match="of a layer"):
            sample(model, steps=1)
        assert time.monotonic() - begun < SECONDS
    assert no_thread_is_left()
    assert not model.additional_models
    assert torch.equal(sample(model, steps=1), expected)


EXCHANGES = {"lines": 1, "parts": 2, "lines of the last block": -3, "the result": -1}
"""An exchange of the first model call, counted from its begin or its end."""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", EXCHANGES.values(), ids=list(EXCHANGES))
@pytest.mark.parametrize("error", [Broken("lost"), torch.OutOfMemoryError("no bytes")], ids=type)
def test_an_error_at_an_exchange_ends_the_run_and_the_next_is_right(
    error, number, rank, sample, flux_model, nodes, product, monkeypatch
):
    transport = product("parallel.local").LocalTransport
    original = transport.exchange
    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu,cpu")
    calls = 2 * 5 + 1  # two exchanges in each of five blocks, and the result

    def exchange(self, sent, awaited):
        self.number = getattr(self, "number", 0) + 1
        if self.rank == rank and self.number == number % (calls + 1):
            raise error
        return original(self, sent, awaited)

    expected = sample(model, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(transport, "exchange", exchange)
        begun = time.monotonic()
        with pytest.raises(type(error), match=str(error)):
            sample(model, steps=1)
        assert time.monotonic() - begun < SECONDS
    assert no_thread_is_left()
    assert torch.equal(sample(model, steps=1), expected)


def test_too_little_memory_names_the_device_and_a_way_out(
    sample, flux_model, nodes, product, monkeypatch
):
    import comfy.model_management

    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu")
    failing(1, "single_blocks.0", torch.OutOfMemoryError("no bytes"), product, monkeypatch)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match="no bytes") as caught:
        sample(model, steps=1)
    assert "cpu ran out of memory with 7 of 13 rows" in str(caught.value)
    assert no_thread_is_left()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_stops_every_device(rank, sample, flux_model, nodes, product, monkeypatch):
    import comfy.model_management as management

    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu")
    expected = sample(model, steps=1)
    team = product("comfyui.parallel.team")
    original = team.model_call

    def call(executor, family, geometry, one, seat, arguments):
        if seat.rank == rank:
            management.interrupt_current_processing()
        return original(executor, family, geometry, one, seat, arguments)

    begun = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(team, "model_call", call)
        try:
            with pytest.raises(management.InterruptProcessingException):
                sample(model, steps=1)
        finally:
            management.interrupt_current_processing(False)
    assert time.monotonic() - begun < SECONDS
    assert no_thread_is_left()
    assert torch.equal(sample(model, steps=1), expected)
