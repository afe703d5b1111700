"""Blocks whose attention never comes to CLEAR are counted and named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ..flux_runs import RADIUS
from ..sd3_fixtures import TEXT_WIDTH


class MixerBlock(nn.Module):
    """As nodes for image prompts have it: a block of their own, with an attention of its own."""

    def __init__(self, block, own_attention=True):
        super().__init__()
        object.__setattr__(self, "of_host", block)
        self.own_attention = own_attention

    def forward(self, *args, transformer_options=None, **kwargs):
        options = {} if self.own_attention else transformer_options
        return self.of_host(*args, transformer_options=options, **kwargs)


def with_mixers(model, kind, own_attention=True, indices=None):
    model = model.clone()
    for index, block in enumerate(getattr(model.model.diffusion_model, kind)):
        if indices is None or index in indices:
            path = f"diffusion_model.{kind}.{index}"
            model.add_object_patch(path, MixerBlock(block, own_attention))
    return model


OTHERS = "sent CLEAR no attention: computed by another node (MixerBlock) with full attention of its"


@pytest.mark.parametrize("first", [True, False], ids=["mixer first", "window first"])
def test_blocks_with_anothers_attention_are_counted_and_named(
    first, flux_model, nodes, sample, lines
):
    base = flux_model("b")
    if first:
        model = nodes.CLEARAttention(with_mixers(base, "double_blocks"), RADIUS)
    else:
        model = with_mixers(nodes.CLEARAttention(base, RADIUS), "double_blocks")
    sample(model, steps=3, cfg=1.0)
    local, missed = lines()
    assert local.endswith("9 attention calls")
    assert missed.startswith(f"2 of 5 blocks (double 0-1) {OTHERS}")
    assert missed.endswith("own, 3 model calls")


def test_an_attention_that_comes_through_anothers_block_is_not_missed(
    flux_model, nodes, sample, lines
):
    model = with_mixers(flux_model("b"), "double_blocks", own_attention=False)
    sample(nodes.CLEARAttention(model, RADIUS), cfg=1.0)
    (line,) = lines()
    assert line.endswith("10 attention calls")


def test_softmax_scale_alone_knows_what_it_misses(flux_model, nodes, sample, lines):
    model = with_mixers(flux_model("b"), "single_blocks", indices=[1])
    sample(nodes.CLEARHighRes(model, 1.0, True), cfg=1.0)
    (line,) = lines()
    assert line.startswith(f"1 of 5 blocks (single 1) {OTHERS}")


def test_blocks_that_are_skipped_are_counted(flux_model, nodes, sample, lines):
    model = flux_model("b").clone()
    model.set_model_patch_replace(
        lambda args, extra: {"img": args["img"]}, "dit", "single_block", 2
    )
    sample(nodes.CLEARAttention(model, RADIUS), cfg=1.0)
    assert lines()[1] == (
        "1 of 5 blocks (single 2) sent CLEAR no attention: skipped by another node, or computed "
        "with full attention of its own, 2 model calls"
    )


def test_calls_that_are_skipped_as_a_whole_miss_nothing(flux_model, nodes, sample, lines):
    from comfy.patcher_extension import WrappersMP

    seen = []

    def skip(executor, x, *args, **kwargs):
        seen.append(x)
        return executor(x, *args, **kwargs) if len(seen) == 1 else torch.zeros_like(x)

    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cache", skip)
    sample(model, steps=3, cfg=1.0)
    (line,) = lines()
    assert line.endswith("5 attention calls")
    assert len(seen) == 3


def test_blocks_without_names_are_counted(sd3_model, nodes, sample, lines):
    """SD3's host names no block; a second attention in a block counts as one of its own."""

    def prompt(seed):
        draw = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, 32, generator=draw)
        return [[torch.randn(1, 40, TEXT_WIDTH, generator=draw), {"pooled_output": pooled}]]

    def run(model):
        sample(model, cfg=1.0, positive=prompt(1), negative=prompt(2))

    base = sd3_model("3.5-medium")
    run(nodes.CLEARAttention(base, RADIUS))
    assert len(lines()) == 2
    run(nodes.CLEARAttention(with_mixers(base, "joint_blocks", indices=[2]), RADIUS))
    assert lines()[-1].startswith(f"1 of 5 blocks {OTHERS}")


def test_blocks_of_a_controlnet_are_counted(flux_model, make_control_net, nodes, controlled, lines):
    net = make_control_net("instantx")
    blocks = net.control_model.double_blocks
    blocks[1] = MixerBlock(blocks[1])
    controlled(
        nodes.CLEARAttention(flux_model("b"), RADIUS), nodes.CLEARControlNet(net, 3), cfg=1.0
    )
    assert any(
        line.startswith("ControlNet: 1 of 3 blocks") and "(MixerBlock)" in line for line in lines()
    )
