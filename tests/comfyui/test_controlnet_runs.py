"""CLEAR ControlNet in whole sampling runs: the model's window, reports, steps that reuse."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from .controlnet_fixtures import hint_for
from .test_sampling import RADIUS, SIZE, conditioning, lines, sample  # noqa: F401 - fixtures

TEXT = (40, 56)
GRID = f"{SIZE[0] // 2} x {SIZE[1] // 2} image tokens"


@pytest.fixture
def controlled(sample):  # noqa: F811
    """Sample with ControlNets between two conditionings, as ControlNetApplyAdvanced puts them."""

    def run(model, *nets, references=None, **kwargs):
        from nodes import ControlNetApplyAdvanced

        positive, negative = conditioning(TEXT[0], 2), conditioning(TEXT[1], 3)
        if references is not None:
            positive[0][1]["reference_latents"] = references
        for net in nets:
            image = hint_for("instantx", SIZE).movedim(1, -1)
            positive, negative = ControlNetApplyAdvanced().apply_controlnet(
                positive, negative, net, image, 0.8, 0.0, 1.0
            )
        return sample(model, positive=positive, negative=negative, **kwargs)

    return run


@pytest.fixture
def calls(make_control_net):
    """A net, and the noise levels at which it is computed."""
    net, levels = make_control_net("instantx"), []

    def note(module, args, kwargs):
        levels.append(round(float(kwargs["timesteps"][0]), 3))

    net.control_model.register_forward_pre_hook(note, with_kwargs=True)
    return net, levels


def test_a_whole_run_equals_the_hosts_where_the_window_covers_the_grid(
    flux_model, make_control_net, nodes, controlled
):
    net, model = make_control_net("instantx"), flux_model("b")
    expected = controlled(model, net, net)
    local = nodes.CLEARControlNet(net, 64)
    torch.testing.assert_close(controlled(model, local, local), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, controlled(model), atol=1e-2)


def test_reference_pictures_of_the_model_are_none_of_the_nets(
    flux_model, make_control_net, nodes, controlled
):
    net = make_control_net("instantx")
    model = nodes.CLEARAttention(flux_model("b"), 64)
    references = [torch.randn(1, 16, 10, 8, generator=torch.Generator().manual_seed(8))]
    local = nodes.CLEARControlNet(net, 0)
    found = controlled(model, local, cfg=1.0, references=references)
    expected = controlled(flux_model("b"), net, cfg=1.0, references=references)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, controlled(model, local, cfg=1.0), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_radius_of_zero_takes_the_models_window(
    batch, flux_model, make_control_net, nodes, controlled
):
    net = make_control_net("instantx")
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, pool_factor=4, dense_blocks="single 0")
    follows, says = nodes.CLEARControlNet(net, 0), nodes.CLEARControlNet(net, RADIUS)
    out = controlled(model, follows, batch=batch)
    assert torch.equal(out, controlled(model, says, batch=batch))
    assert not torch.equal(out, controlled(model, net, batch=batch))


def test_a_radius_of_zero_takes_the_models_steps(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,  # noqa: F811
):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, start_percent=0.5)
    controlled(model, nodes.CLEARControlNet(make_control_net("instantx"), 0), cfg=1.0)
    of_net = [line for line in lines() if line.startswith("ControlNet: ")]
    assert len(of_net) == 2
    assert "dense" in of_net[0]
    assert "outside 0.5 to 1 of the schedule" in of_net[0]
    assert "radius 4" in of_net[1]


def test_a_radius_of_zero_without_a_window_is_warned_about(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,  # noqa: F811
):
    net, model = make_control_net("instantx"), flux_model("b")
    out = controlled(model, nodes.CLEARControlNet(net))
    assert torch.equal(out, controlled(model, net))
    warned = [line for line in lines() if "full attention: a radius of 0 takes" in line]
    assert len(warned) == 1


def test_the_report_tells_the_models_attention_from_the_nets(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,  # noqa: F811
):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    controlled(model, nodes.CLEARControlNet(make_control_net("instantx"), 3), cfg=1.0)
    found = lines()
    assert [line.startswith("ControlNet: ") for line in found] == [True, False]
    assert f"radius 3, {TEXT[0]} text + {GRID}" in found[0]
    assert "6 attention calls" in found[0]  # 3 blocks, 2 steps
    assert "radius 4" in found[1]
    assert "10 attention calls" in found[1]


def test_a_net_behind_a_model_without_our_nodes_reports_by_itself(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,  # noqa: F811
):
    controlled(flux_model("b"), nodes.CLEARControlNet(make_control_net("instantx"), RADIUS))
    for text, line in zip(TEXT, sorted(lines()), strict=True):
        assert f"radius 4, {text} text + {GRID}" in line
        assert "6 attention calls" in line


def test_the_report_reaches_the_nets_own_node(
    flux_model, make_control_net, nodes, node_classes, controlled, monkeypatch
):
    sent = {}
    server = SimpleNamespace(send_progress_text=lambda text, node: sent.update({node: text}))
    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    monkeypatch.setitem(sys.modules, "server", fake)
    hidden = SimpleNamespace(unique_id="12")
    monkeypatch.setattr(node_classes["CLEARControlNet"], "hidden", hidden)
    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    with_prompt(monkeypatch, {"12": {"class_type": "CLEARControlNet", "inputs": {}}})
    controlled(nodes.CLEARAttention(flux_model("b"), RADIUS), net)
    assert "ControlNet of node 12: " in sent["12"]
    sent.clear()
    controlled(flux_model("b"), net)
    assert "radius 4" in sent["12"]


def with_prompt(monkeypatch, prompt):
    import comfy_execution.progress as progress
    from comfy_execution.graph import DynamicPrompt

    state = progress.ProgressRegistry(prompt_id="p", dynprompt=DynamicPrompt(prompt))
    monkeypatch.setattr(progress, "global_progress_registry", state)


def test_a_union_type_set_before_or_after_counts_as_a_token(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,  # noqa: F811
):
    net = make_control_net("union")
    for made in (
        typed(nodes.CLEARControlNet(net, RADIUS)),
        nodes.CLEARControlNet(typed(net), RADIUS),
    ):
        controlled(flux_model("b"), made, cfg=1.0)
    assert len(lines()) == 2
    assert all(f"radius 4, {TEXT[0] + 1} text + {GRID}" in line for line in lines())


def typed(net):
    from comfy_extras.nodes_controlnet import SetUnionControlNetType

    run = (
        getattr(SetUnionControlNetType, "execute", None)
        or SetUnionControlNetType().set_controlnet_type
    )
    out = run(net, "tile")
    return out[0] if isinstance(out, tuple) else out.args[0]


def test_every_second_step_computes_for_the_next_one(flux_model, nodes, controlled, calls):
    net, levels = calls
    model = flux_model("b")
    controlled(model, nodes.CLEARControlNet(net, RADIUS, every=2), steps=5)
    # Two prompts of different length are two calls.
    assert levels == [1.0, 1.0, 0.6, 0.6, 0.2, 0.2]


def test_what_is_reused_is_what_was_computed(flux_model, nodes, controlled, make_control_net):
    """Two steps, of which the second one reuses: as if its residuals were the first one's."""
    net, model = make_control_net("instantx"), flux_model("b")
    kept = controlled(model, nodes.CLEARControlNet(net, 64, every=2), steps=2)
    frozen = net.copy()
    frozen.control_model = Frozen(net.control_model)
    expected = controlled(model, frozen, steps=2)
    torch.testing.assert_close(kept, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(kept, controlled(model, net, steps=2), atol=1e-3)


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
    flux_model, nodes, controlled, calls
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


def stop_at_second(calls):
    def stop(args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return args["denoised"]

    return stop


def test_the_same_conditioning_run_again_after_an_interruption_starts_anew(
    flux_model,
    nodes,
    sample,  # noqa: F811
    calls,
):
    """The host keeps conditionings of unchanged nodes, and a stopped run cleans nothing up."""
    from nodes import ControlNetApplyAdvanced

    net, levels = calls
    local = nodes.CLEARControlNet(net, RADIUS, every=2)
    image = hint_for("instantx", SIZE).movedim(1, -1)
    positive, _ = ControlNetApplyAdvanced().apply_controlnet(
        conditioning(40, 2), [], local, image, 0.8, 0.0, 1.0
    )
    model = flux_model("b")
    clean = sample(model, steps=3, cfg=1.0, positive=positive)
    stopping = model.clone()
    stopping.set_model_sampler_post_cfg_function(stop_at_second([]))
    with pytest.raises(KeyboardInterrupt):
        sample(stopping, steps=3, cfg=1.0, positive=positive)
    levels.clear()
    assert torch.equal(sample(model, steps=3, cfg=1.0, positive=positive), clean)
    assert levels == [1.0, 0.333]


def test_where_calls_cannot_be_told_apart_nothing_more_is_reused_and_the_log_says_so(
    flux_model,
    nodes,
    controlled,
    calls,
    lines,  # noqa: F811
):
    net, levels = calls
    local = nodes.CLEARControlNet(net, RADIUS, every=2)
    controlled(flux_model("b"), local, steps=3, cfg=1.0, sampler="heun")
    # A step of heun looks at the next level, too, with which the next step begins.
    assert levels == [1.0, 0.667, 0.333, 0.333]
    assert sum("nothing is reused between steps: the same" in line for line in lines()) == 1
    assert not any("computed on the first" in line for line in lines())
