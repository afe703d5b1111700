"""A checkpoint's own attention gets the calls that CLEAR declines, as it would without CLEAR.

Newest hosts have it in a `comfy_attention` of each layer that attends. Here it is a stand-in.
"""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import RADIUS, inputs, with_override

BLOCKS = [("double", 0), ("double", 1), ("single", 0), ("single", 1), ("single", 2)]


@pytest.fixture
def bring(host, monkeypatch):
    """Give blocks of a model an attention of their own, and list the blocks that it ran in."""
    import comfy.ldm.modules.attention as attention

    class ComfyAttention(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

    monkeypatch.setattr(attention, "ComfyAttention", ComfyAttention, raising=False)

    def bring_to(model, blocks, child=None):
        ran = []

        def function_of(block):
            def function(q, k, v, heads, **kwargs):
                ran.append((block, kwargs["transformer_options"].get("block_index")))
                return attention.attention_pytorch(q, k, v, heads, **kwargs)

            return function

        network = model.model.diffusion_model
        lists = {"double": getattr(network, "double_blocks", ())}
        lists |= {"single": getattr(network, "single_blocks", ())}
        lists |= {"joint": getattr(network, "joint_blocks", ())}
        for kind, index in blocks:
            module = lists[kind][index]
            layer = module.get_submodule(child) if child else module
            layer.comfy_attention = ComfyAttention(function_of((kind, index)))
        return ran

    return bring_to


def test_dense_blocks_run_the_checkpoints_own_attention(flux_model, nodes, run, bring):
    model = flux_model("b")
    ran = bring(model, BLOCKS[:1] + BLOCKS[2:4])
    local = nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0-1, single 1")
    expected = run(
        nodes.CLEARAttention(flux_model("b"), RADIUS, dense_blocks="double 0-1, single 1"),
        **inputs(),
    )
    found = run(local, **inputs())
    assert [block for block, _ in ran] == [("double", 0), ("single", 1)]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_softmax_scale_reaches_the_checkpoints_own_attention(flux_model, nodes, run, bring):
    model = flux_model("b")
    expected = run(nodes.CLEARHighRes(flux_model("b"), 1.0, True), **inputs())
    ran = bring(model, BLOCKS)
    found = run(nodes.CLEARHighRes(model, 1.0, True), **inputs())
    assert [block for block, _ in ran] == BLOCKS
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_another_override_comes_before_it_as_in_the_host(flux_model, nodes, run, bring):
    model, others = flux_model("b"), []

    def other(func, *args, **kwargs):
        others.append(kwargs["transformer_options"]["block_type"])
        return func(*args, **kwargs)

    ran = bring(model, BLOCKS)
    local = nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0")
    run(with_override(local, other), **inputs())
    assert others == ["double"] and ran == []


def test_calls_in_the_window_are_ours(flux_model, nodes, run, bring):
    model = flux_model("b")
    ran = bring(model, BLOCKS)
    run(nodes.CLEARAttention(model, RADIUS), **inputs())
    assert ran == []


def test_both_attentions_of_a_joint_block_are_known(sd3_model, nodes, run, bring, product):
    model = sd3_model("3.5-medium")
    bring(model, [("joint", 0)], child="x_block")
    families = product("comfyui.families")
    network = model.model.diffusion_model
    of = product("comfyui.core.calls.own_attention").own_attentions(
        families.family_of(network), network, None
    )
    assert set(of) == {("joint", 0), ("image", 0)}


def test_blocks_whose_layers_do_not_agree_are_reported(flux_model, nodes, sample, bring, lines):
    model = flux_model("b")
    ran = bring(model, BLOCKS)
    bring(model, BLOCKS[:1], child="img_attn")
    sample(nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0-1"), steps=1, cfg=1.0)
    assert {block for block, _ in ran} == {("double", 1)}
    assert any("have different ones" in line for line in lines())


def test_a_host_without_it_is_not_searched(flux_model, product):
    network = flux_model("b").model.diffusion_model
    families = product("comfyui.families")
    module = product("comfyui.core.calls.own_attention")
    for block in network.double_blocks:
        block.comfy_attention = None
    assert module.own_attentions(families.family_of(network), network, None) == {}
