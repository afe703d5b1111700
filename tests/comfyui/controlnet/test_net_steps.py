"""CLEAR ControlNet on some of a run's steps only: what is reused, and what is not."""

from __future__ import annotations

import pytest
import torch

from ..controlnet_fixtures import hint_for
from ..flux_runs import RADIUS, conditioning
from ..sampling_fixtures import SIZE, stop_at_second


@pytest.fixture
def calls(make_control_net):
    """A net, and the noise levels at which it is computed."""
    net, levels = make_control_net("instantx"), []

    def note(module, args, kwargs):
        levels.append(round(float(kwargs["timesteps"][0]), 3))

    net.control_model.register_forward_pre_hook(note, with_kwargs=True)
    return net, levels


def test_every_second_step_computes_for_the_next_one(flux_model, nodes, controlled, calls):
    net, levels = calls
    model = flux_model("b")
    controlled(model, nodes.CLEARControlNet(net, RADIUS, every=2), steps=5)
    # Two prompts of different length are two calls.
    assert levels == [1.0, 1.0, 0.6, 0.6, 0.2, 0.2]


@pytest.mark.parametrize("end", [1.0, 0.6])
def test_what_is_reused_is_what_was_computed_and_no_longer_than_end_percent(
    end,
    flux_model,
    nodes,
    controlled,
    make_control_net,
):
    """Three steps, of which the first one computes: as if its residuals were those of all."""
    net, model = make_control_net("instantx"), flux_model("b")
    kept = controlled(model, nodes.CLEARControlNet(net, 64, every=3), steps=3, end=end)
    frozen = net.copy()
    frozen.control_model = Frozen(net.control_model)
    expected = controlled(model, frozen, steps=3, end=end)
    torch.testing.assert_close(kept, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(kept, controlled(model, net, steps=3, end=end), atol=1e-3)


class Frozen(torch.nn.Module):
    """Answers each prompt as it did the first time."""

    def __init__(self, network):
        super().__init__()
        self.network, self.answers, self.dtype = network, {}, network.dtype

    def forward(self, context, **kwargs):
        if context.shape not in self.answers:
            self.answers[context.shape] = self.network(context=context, **kwargs)
        answer = self.answers[context.shape]
        copies = {}  # the host multiplies in place, once for each tensor that occurs twice
        return {
            key: [copies.setdefault(id(x), x.clone()) for x in value]
            for key, value in answer.items()
        }


def test_a_run_after_an_interrupted_one_is_as_if_there_had_been_none(
    flux_model,
    nodes,
    controlled,
    calls,
):
    net, levels = calls
    model = flux_model("b")
    local = nodes.CLEARControlNet(net, RADIUS, every=3)
    clean = controlled(model, local, steps=4, cfg=1.0)
    computed = list(levels)
    stopping = model.clone()
    stopping.set_model_sampler_post_cfg_function(stop_at_second([]))
    with pytest.raises(KeyboardInterrupt):
        controlled(stopping, local, steps=4, cfg=1.0)
    levels.clear()
    assert torch.equal(controlled(model, local, steps=4, cfg=1.0), clean)
    assert levels == computed == [1.0, 0.25]


def test_the_same_conditioning_run_again_after_an_interruption_starts_anew(
    flux_model,
    nodes,
    sample,
    calls,
):
    """The host keeps conditionings of unchanged nodes, and a stopped run cleans nothing up."""
    from nodes import ControlNetApplyAdvanced

    net, levels = calls
    local = nodes.CLEARControlNet(net, RADIUS, every=3)
    image = hint_for("instantx", SIZE).movedim(1, -1)
    positive, _ = ControlNetApplyAdvanced().apply_controlnet(
        conditioning(40, 2), [], local, image, 0.8, 0.0, 1.0
    )
    model = flux_model("b")
    clean = sample(model, steps=4, cfg=1.0, positive=positive)
    stopping = model.clone()
    stopping.set_model_sampler_post_cfg_function(stop_at_second([]))
    with pytest.raises(KeyboardInterrupt):
        sample(stopping, steps=4, cfg=1.0, positive=positive)
    levels.clear()
    assert torch.equal(sample(model, steps=4, cfg=1.0, positive=positive), clean)
    assert levels == [1.0, 0.25]


def test_where_calls_cannot_be_told_apart_nothing_more_is_reused_and_the_log_says_so(
    flux_model,
    nodes,
    controlled,
    calls,
    lines,
):
    net, levels = calls
    local = nodes.CLEARControlNet(net, RADIUS, every=2)
    controlled(flux_model("b"), local, steps=3, cfg=1.0, sampler="heun")
    # A step of heun looks at the next level, too, with which the next step begins.
    assert levels == [1.0, 0.667, 0.333, 0.333]
    assert sum("nothing is reused between steps: the same" in line for line in lines()) == 1
    assert not any("computed on the first" in line for line in lines())


def test_a_picture_that_another_node_moves_between_steps_is_seen_anew(
    flux_model, nodes, controlled, make_control_net, monkeypatch, lines
):
    """As SpotDiffusion does with its tiles: it rolls what the net is shown at each step."""
    model = flux_model("b")
    kept, each = (nodes.CLEARControlNet(make_control_net("instantx"), 64, n) for n in (2, 1))
    of_ours = type(kept).get_control

    def moved(net, *arguments):
        if net.cond_hint is not None:
            net.cond_hint = net.cond_hint.roll(4, -1)
        return of_ours(net, *arguments)

    still = controlled(model, kept, steps=4, cfg=1.0)
    assert not torch.allclose(still, controlled(model, each, steps=4, cfg=1.0), atol=1e-3)
    monkeypatch.setattr(type(kept), "get_control", moved)
    found = controlled(model, kept, steps=4, cfg=1.0)
    assert any("SpotDiffusion" in line for line in lines())
    assert torch.equal(found, controlled(model, each, steps=4, cfg=1.0))
