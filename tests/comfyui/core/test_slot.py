"""CLEAR's place in the slot for attention overrides: there only where it has something to do.

Newer hosts leave a checkpoint's own attention out as soon as anything is in the slot.
"""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import OVERRIDE, RADIUS, inputs, with_override

MODELS = {
    "positions": lambda nodes, model: nodes.CLEARHighRes(model, 10.0, False),
    "seamless": lambda nodes, model: nodes.CLEARSeamless(model),
    "low memory": lambda nodes, model: nodes.CLEARLowMemory(model, 64),
    "parallel": lambda nodes, model: nodes.CLEARParallel(model, "cpu,cpu"),
    "min_tokens": lambda nodes, model: nodes.CLEARAttention(model, RADIUS, min_tokens=10**6),
    "dense blocks, but no window now": lambda nodes, model: nodes.CLEARAttention(
        model, RADIUS, dense_blocks="double 0", min_tokens=10**6
    ),
    "window": lambda nodes, model: nodes.CLEARAttention(model, RADIUS),
    "softmax scale": lambda nodes, model: nodes.CLEARHighRes(model, 1.0, True),
}
TAKEN = ("window", "softmax scale")


@pytest.fixture
def slots(flux_model, run):
    """Return what each block of a model finds in the slot."""

    def of(model, arguments):
        found = []

        def look(module, args, kwargs):
            found.append(kwargs["transformer_options"].get(OVERRIDE))

        network = model.model.diffusion_model
        blocks = [*network.double_blocks, *network.single_blocks]
        hooks = [block.register_forward_pre_hook(look, with_kwargs=True) for block in blocks]
        run(model, **arguments)
        for hook in hooks:
            hook.remove()
        return found

    return of


@pytest.mark.parametrize("kind", MODELS)
def test_the_slot_is_taken_only_by_calls_that_are_not_the_hosts_own(kind, flux_model, nodes, slots):
    found = slots(MODELS[kind](nodes, flux_model("b")), inputs())
    if "memory" not in kind:  # its blocks are called by their halves
        assert len(found) == 5
    assert all((one is not None) == (kind in TAKEN) for one in found)


def test_the_slot_is_taken_within_the_schedule_only(flux_model, nodes, slots):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, end_percent=0.5)
    sampling = model.get_model_object("model_sampling")
    for percent, taken in ((0.2, True), (0.8, False)):
        sigma = torch.tensor([sampling.percent_to_sigma(percent)])
        found = slots(model, inputs() | {"timestep": sigma})
        assert [one is not None for one in found] == [taken] * 5


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_another_override_keeps_its_place_in_dense_calls(first, flux_model, nodes, slots):
    def other(func, *args, **kwargs):
        return func(*args, **kwargs)

    def ours(model):
        return nodes.CLEARAttention(model, RADIUS, min_tokens=10**6)

    base = nodes.CLEARHighRes(flux_model("b"), 1.0, False)  # for its options
    model = ours(with_override(base, other)) if first else with_override(ours(base), other)
    assert slots(model, inputs()) == [other] * 5


def test_calls_that_are_dense_as_a_whole_are_reported(flux_model, nodes, sample, lines):
    sample(nodes.CLEARAttention(flux_model("b"), RADIUS, min_tokens=10**6), steps=3, cfg=1.0)
    assert lines() == ["dense, 3 model calls: 130 image tokens are fewer than min_tokens 1000000"]
