"""What CLEAR ControlNet tells of a run, on its node and in the log."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from ..controlnet_fixtures import hint_for
from ..flux_runs import RADIUS, conditioning
from ..sampling_fixtures import GRID, SIZE, TEXT, stop_at_second


@pytest.fixture
def sent(node_classes, monkeypatch):
    """What the nodes show; CLEAR ControlNet is node 12."""
    texts = {}
    server = SimpleNamespace(send_progress_text=lambda text, node: texts.update({node: text}))
    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    monkeypatch.setitem(sys.modules, "server", fake)
    hidden = SimpleNamespace(unique_id="12")
    monkeypatch.setattr(node_classes["CLEARControlNet"], "hidden", hidden)
    with_prompt(monkeypatch, {"12": {"class_type": "CLEARControlNet", "inputs": {}}})
    return texts


def test_the_report_tells_the_models_attention_from_the_nets(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    controlled(model, nodes.CLEARControlNet(make_control_net("instantx"), 3), cfg=1.0)
    found = lines()
    assert [line.startswith("ControlNet: ") for line in found] == [True, False]
    assert f"radius 3, {TEXT[0]} text + {GRID}" in found[0]
    assert "6 attention calls" in found[0]  # 3 blocks, 2 steps
    assert "radius 4" in found[1]
    assert "10 attention calls" in found[1]


def test_an_interrupted_run_still_reports_the_net(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS).clone()
    model.set_model_sampler_post_cfg_function(stop_at_second([]))
    with pytest.raises(KeyboardInterrupt):
        controlled(model, nodes.CLEARControlNet(make_control_net("instantx"), 3), steps=4)
    assert any(line.startswith("ControlNet: ") and "radius 3" in line for line in lines())


def test_a_nets_attention_does_not_pass_for_the_models(host, lines):
    from clear_attention.comfyui.core.report import NOTHING_SEEN, ComputedPath, RunReport

    of_net, of_model = RunReport(), RunReport()
    of_net.add(ComputedPath("tiled"))
    of_model.include(of_net, "ControlNet")
    of_model.publish(())
    assert lines() == [NOTHING_SEEN, "ControlNet: tiled, 1 attention call"]


def test_a_net_behind_a_model_without_our_nodes_reports_by_itself(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
):
    controlled(flux_model("b"), nodes.CLEARControlNet(make_control_net("instantx"), RADIUS))
    for text, line in zip(TEXT, sorted(lines()), strict=True):
        assert f"radius 4, {text} text + {GRID}" in line
        assert "6 attention calls" in line


def test_a_net_whose_attention_another_node_replaced_is_warned_about(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    lines,
    monkeypatch,
):
    def attention(q, k, v, heads, **_):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2)

    monkeypatch.setattr("comfy.ldm.flux.math.optimized_attention", attention)
    controlled(flux_model("b"), nodes.CLEARControlNet(make_control_net("instantx"), RADIUS))
    assert [line for line in lines() if "ControlNet: no attention call reached CLEAR" in line]


def test_the_report_reaches_the_nets_own_node(
    flux_model,
    make_control_net,
    nodes,
    controlled,
    sent,
):
    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    controlled(nodes.CLEARAttention(flux_model("b"), RADIUS), net)
    assert "ControlNet of node 12: " in sent["12"]
    sent.clear()
    controlled(flux_model("b"), net)
    assert "radius 4" in sent["12"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_copies_that_were_made_of_a_nodes_net_share_its_report(
    interrupted,
    flux_model,
    make_control_net,
    nodes,
    sample,
    sent,
    lines,
):
    from nodes import ControlNetApplyAdvanced

    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    image, prompts = hint_for("instantx", SIZE).movedim(1, -1), []
    for text in TEXT:
        prompts += ControlNetApplyAdvanced().apply_controlnet(
            conditioning(text, text), [], net, image, 0.8, 0.0, 1.0
        )[:1]
    run, model = dict(positive=prompts[0], negative=prompts[1]), flux_model("b")
    if interrupted:
        stopping = model.clone()
        stopping.set_model_sampler_post_cfg_function(stop_at_second([]))
        with pytest.raises(KeyboardInterrupt):
            sample(stopping, **run)
        assert not sent
    for _ in range(2):
        lines_before = len(lines())
        sample(model, **run)
        told = [line.rstrip() for line in sent.pop("12").splitlines()]
        assert sorted(told) == sorted(lines()[lines_before:])
        for text, line in zip(TEXT, sorted(told), strict=True):
            assert f"radius 4, {text} text + {GRID}" in line
            assert "6 attention calls" in line


def with_prompt(monkeypatch, prompt):
    import comfy_execution.progress as progress
    from comfy_execution.graph import DynamicPrompt

    state = progress.ProgressRegistry(prompt_id="p", dynprompt=DynamicPrompt(prompt))
    monkeypatch.setattr(progress, "global_progress_registry", state)
