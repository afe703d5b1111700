"""Residuals that CLEAR ControlNet keeps between steps: how long they stay in memory."""

from __future__ import annotations

import weakref

import pytest
import torch

from ..controlnet_fixtures import call_of, flat, hint_for

SIZE = (6, 6)
STEPS = 8


@pytest.fixture
def net(make_control_net, nodes):
    """A net that computes the first of every four steps."""
    local = nodes.CLEARControlNet(make_control_net("instantx"), 4, every=4)
    return local.copy().set_cond_hint(hint_for("instantx", SIZE))


@pytest.fixture
def begin(flux_model):
    model = flux_model("b").model
    return lambda net: net.pre_run(model, model.model_sampling.percent_to_sigma)


def ask(net, level, sigmas, **options):
    call = call_of("instantx", SIZE)
    told = {"uuids": ["a"], "cond_or_uncond": [0], "sample_sigmas": sigmas, **options}
    with torch.inference_mode():
        return net.get_control(call["x"], torch.tensor([level]), call["cond"], 1, told)


def watched(control):
    return [weakref.ref(tensor) for tensor in flat(control)]


def alive(watch):
    return any(tensor() is not None for tensor in watch)


def test_what_is_kept_ends_with_the_run_where_its_sigmas_live_on(net, begin):
    """As those of a cached scheduler node do, on a CPU."""
    sigmas = torch.linspace(1, 0, STEPS + 1)
    for _ in range(3):
        begin(net)
        watch = watched(ask(net, 0.9, sigmas))
        assert alive(watch)
        net.cleanup()
        assert not alive(watch)


def test_what_an_interrupted_run_kept_ends_with_the_next_or_with_its_net(net, begin):
    sigmas = torch.linspace(1, 0, STEPS + 1)
    for _ in range(3):
        begin(net)
        watch = watched(ask(net, 0.9, sigmas))
        assert alive(watch)
        begin(net)
        assert not alive(watch)
    dropped = net.copy()
    begin(dropped)
    watch = watched(ask(dropped, 0.9, sigmas))
    assert alive(watch)
    del dropped
    assert not alive(watch)


def test_several_gpus_reuse_steps_too(net, begin):
    """The host gives each call on them a copy of the sigmas."""
    computed = []
    net.control_model.register_forward_pre_hook(lambda *_: computed.append(True))
    begin(net)
    found = []
    for step in range(STEPS):
        device, before = torch.device("cpu"), len(computed)
        sigmas = torch.linspace(1, 0, STEPS + 1)
        ask(net, 1 - step / STEPS, sigmas, multigpu_thread_device=device)
        del sigmas
        found.append(len(computed) > before)
    assert found == [True, False, False, False] * 2
