"""CLEAR below nodes that put one module in place of all blocks, as first-block caches do."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import nn

from ..chroma_fixtures import inputs as chroma_inputs
from ..families.test_sd3 import inputs as sd3_inputs
from ..flux_runs import RADIUS, sampled


class CachedBlocks(nn.Module):
    """Runs all blocks as one; without a cache, so that the result must not change."""

    def __init__(self, joint, single=None):
        super().__init__()
        self.joint = joint
        self.single = single

    def forward(self, *args, **kwargs):
        if self.single is None:  # SD3: text, image
            text, image = args
            for block in self.joint:
                text, image = block(text, image, **kwargs)
            return text, image
        image, text = kwargs.pop("img"), kwargs.pop("txt")
        vec = kwargs.pop("vec")
        for index, block in enumerate(self.joint):
            image, text = block(img=image, txt=text, vec=theirs(vec, "double", index), **kwargs)
        both = torch.cat((text, image), 1)
        for index, block in enumerate(self.single):
            both = block(both, vec=theirs(vec, "single", index), **kwargs)
        return both[:, text.shape[1] :], text


MODULATIONS = {}
"""Chroma's modulations of each block, which the host picks in its own loop."""


def theirs(vec, kind, index):
    return MODULATIONS[kind, index]


def contained(model):
    """Return a clone of an SD3 model whose blocks are in a container during each call."""
    model = model.clone()
    network = model.model.diffusion_model
    container = nn.ModuleList([CachedBlocks(network.joint_blocks)])

    def wrapper(apply, given):
        with patch.multiple(network, joint_blocks=container):
            return apply(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(wrapper)
    return model


def conditioning(seed):
    draw = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 32, generator=draw)
    return [[torch.randn(1, 40, 48, generator=draw), {"pooled_output": pooled}]]


RUN = dict(size=(20, 16), positive=conditioning(1), negative=conditioning(2))


@pytest.mark.parametrize("first", [True, False], ids=["container first", "window first"])
@pytest.mark.parametrize("kind", ["window", "dense blocks", "pooling weights", "low memory"])
def test_each_block_of_a_container_is_known(
    kind, first, sd3_model, sd3_clear, nodes, lines, caplog
):
    def ours(model):
        if kind == "pooling weights":
            return nodes.CLEARLoader(model, sd3_clear("3.5-medium", 4).name, 1.0, RADIUS)
        dense = "joint 1" if kind == "dense blocks" else ""
        model = nodes.CLEARAttention(model, RADIUS, dense_blocks=dense)
        return nodes.CLEARLowMemory(model, 64) if kind == "low memory" else model

    base = sd3_model("3.5-medium")
    expected = sampled(ours(base), **RUN)
    told = [line for line in lines() if not line.startswith("memory: joint")]
    caplog.clear()
    model = ours(contained(base)) if first else contained(ours(base))
    # In slices, the sums are made in another order.
    exact = dict(atol=1e-5, rtol=1e-5) if kind == "low memory" else dict(atol=0, rtol=0)
    torch.testing.assert_close(sampled(model, **RUN), expected, **exact)
    whole = "memory: blocks whole: another node runs them (TeaCache, PuLID, a block cache)"
    assert [line for line in lines() if line != whole] == told
    assert (whole in lines()) == (kind == "low memory")


def test_both_kinds_of_blocks_in_one_container_are_known(chroma_model, nodes, run):
    """Chroma has a list for each kind; the container holds both."""
    base = chroma_model()
    network = base.model.diffusion_model
    arguments = chroma_inputs()

    def ours(model):
        return nodes.CLEARAttention(model, RADIUS, dense_blocks="double 1, single 0-1")

    def remember(kind, index):
        def hook(_, args, kwargs):
            MODULATIONS[kind, index] = kwargs["vec"]

        return hook

    blocks = {"double": network.double_blocks, "single": network.single_blocks}
    handles = [
        block.register_forward_pre_hook(remember(kind, index), with_kwargs=True)
        for kind, listed in blocks.items()
        for index, block in enumerate(listed)
    ]
    expected = run(ours(base), **arguments)
    for handle in handles:
        handle.remove()
    model = ours(base)
    container = CachedBlocks(network.double_blocks, network.single_blocks)
    lists = dict(double_blocks=nn.ModuleList([container]), single_blocks=nn.ModuleList())
    with patch.multiple(network, **lists):
        assert torch.equal(run(model, **arguments), expected)


class Foreign(nn.Module):
    """A block that has nothing of the host's."""

    def forward(self, context, x, c, **kwargs):
        return context, x


def test_a_block_of_another_node_is_no_attribute_error(sd3_model, nodes, run, product):
    model = sd3_model("3.5-medium")
    network = model.model.diffusion_model
    foreign = nn.ModuleList([Foreign(), *network.joint_blocks[1:]])
    with patch.multiple(network, joint_blocks=foreign):
        local = nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 1")
        assert product("comfyui.core.job").network_of(model).mlp == 4 * network.hidden_size
        assert run(local, **sd3_inputs()).isfinite().all()
    alone = nn.ModuleList([Foreign()])
    with (
        patch.multiple(network, joint_blocks=alone),
        pytest.raises(ValueError, match="read from its blocks, got Foreign in their place"),
    ):
        product("comfyui.core.job").network_of(model)
