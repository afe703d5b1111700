"""CLEAR below nodes that run FLUX's blocks themselves, as TeaCache and PuLID do."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from ..families.test_sd3 import inputs as sd3_inputs
from ..flux_runs import RADIUS, dense_override, disc_bias, inputs, sampled, with_override

SIZE = (26, 20)


class Nameless(dict):
    """Options in which nobody can say which block is running."""

    def __setitem__(self, key, value):
        if key not in ("block_type", "block_index"):
            super().__setitem__(key, value)

    def copy(self):
        return Nameless(self)


def forward_without_options(self, *args, **kwargs):
    """Run the blocks without a call's options, as nodes do that are older than the options."""
    args = [{} if isinstance(arg, dict) else arg for arg in args]
    kwargs = {name: {} if isinstance(arg, dict) else arg for name, arg in kwargs.items()}
    return type(self).forward_orig(self, *args, **kwargs)


def forward_without_names(self, *args, **kwargs):
    """Run the blocks with options that do not tell which one it is."""
    args = [Nameless(arg) if isinstance(arg, dict) else arg for arg in args]
    kwargs = {name: Nameless(a) if isinstance(a, dict) else a for name, a in kwargs.items()}
    return type(self).forward_orig(self, *args, **kwargs)


def with_forward(model, forward):
    """Put a method over the one that runs the blocks, for the time of each model call."""
    model = model.clone()
    diffusion_model = model.get_model_object("diffusion_model")

    def wrapper(apply, given):
        bound = forward.__get__(diffusion_model)
        with patch.multiple(diffusion_model, forward_orig=bound):
            return apply(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(wrapper)
    return model


def hooks_of(model):
    return [hook for module in model.model.modules() for hook in module._forward_pre_hooks.values()]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("forward", [forward_without_options, forward_without_names])
def test_blocks_get_the_window_and_their_own_pooling_weights(
    forward,
    order,
    flux_model,
    nodes,
    clear_folder,
    lines,
):
    base = flux_model("b")

    def window(model):
        return nodes.CLEARLoader(model, "clear_b_down4.safetensors", 1.0, RADIUS)

    expected = sampled(window(base), SIZE)
    told = lines()
    first = order == "before"
    model = window(with_forward(base, forward)) if first else with_forward(window(base), forward)
    assert torch.equal(sampled(model, SIZE), expected)
    assert lines() == 2 * told
    assert hooks_of(model) == []


def test_chosen_blocks_stay_dense_below_another_forward(flux_model, nodes):
    def window(model):
        return nodes.CLEARAttention(model, RADIUS, dense_blocks="double 1, single 0-1")

    model = with_forward(flux_model("b"), forward_without_options)
    assert torch.equal(sampled(window(model), SIZE), sampled(window(flux_model("b")), SIZE))


def test_hooks_go_when_another_forward_fails(flux_model, nodes):
    def fail(self, *args, **kwargs):
        raise KeyError("a bug of theirs")

    model = nodes.CLEARAttention(with_forward(flux_model("b"), fail), RADIUS)
    with pytest.raises(KeyError, match="a bug of theirs"):
        sampled(model, SIZE)
    assert hooks_of(model) == []


@pytest.mark.parametrize("pooled", [True, False])
def test_sd3s_blocks_get_the_window_below_another_forward(pooled, sd3_model, sd3_clear, nodes, run):
    arguments = sd3_inputs()
    model = sd3_model("3.5-medium")

    def window(model):
        if pooled:
            return nodes.CLEARLoader(model, sd3_clear("3.5-medium", 4).name, 1.0, RADIUS)
        return nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 1")

    expected = run(window(model), **arguments)
    mmdit = model.model.diffusion_model
    plain = type(mmdit).forward_core_with_concat

    def blind(self, *args, transformer_options=None, **kwargs):
        return plain(self, *args, **kwargs)

    mmdit.forward_core_with_concat = blind.__get__(mmdit)
    assert torch.equal(run(window(model), **arguments), expected)
    assert hooks_of(model) == []


def test_low_memory_leaves_blocks_to_another_forward_and_says_so(
    flux_model,
    nodes,
    lines,
):
    window = nodes.CLEARAttention(flux_model("b"), RADIUS)
    model = with_forward(nodes.CLEARLowMemory(window, 20), forward_without_options)
    assert torch.equal(sampled(model, SIZE), sampled(window, SIZE))
    assert (
        "memory: blocks whole: another node runs them (TeaCache, PuLID, a block cache)" in lines()
    )


class OwnBlock(torch.nn.Module):
    """A double block of another node, which knows nothing of options."""

    def forward(self, img, txt, vec, pe, attn_mask=None):
        return img, txt


class WithoutOptions(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, transformer_options=None, **given):
        return self.block(**given)


def forward_with_own_block(self, *args, **kwargs):
    own = {"1": WithoutOptions(self.double_blocks[1])}
    with patch.dict(self.double_blocks._modules, own):
        return type(self).forward_orig(self, *args, **kwargs)


def test_blocks_that_take_no_options_get_none(flux_model, nodes, run):
    model = flux_model("b")
    flux = model.model.diffusion_model
    flux.double_blocks[1] = OwnBlock()
    flux.forward_orig = forward_with_own_block.__get__(flux)
    by_hand = with_override(model, dense_override(disc_bias(40, 12, 9)))
    local = run(nodes.CLEARAttention(model, RADIUS), **inputs())
    torch.testing.assert_close(local, run(by_hand, **inputs()), atol=2e-5, rtol=2e-5)


def test_an_unknown_block_is_reported_where_it_matters(
    flux_model,
    nodes,
    clear_folder,
    lines,
):
    from comfy.patcher_extension import WrappersMP

    def nameless(executor, *args, **kwargs):
        hidden = {"patches_replace": {}}  # by which older hosts are made to say it
        args = [Nameless(arg | hidden) if isinstance(arg, dict) else arg for arg in args]
        return executor(*args, **kwargs)

    def hide_names(model):
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "theirs", nameless)
        return model

    model = nodes.CLEARLoader(flux_model("b"), "clear_b_down4.safetensors", 1.0, RADIUS)
    sampled(hide_names(model), SIZE)
    assert all("another node does not say which block is running" in line for line in lines())
    count = len(lines())
    one_radius = sampled(hide_names(nodes.CLEARAttention(flux_model("b"), RADIUS)), SIZE)
    assert not any("does not say" in line for line in lines()[count:])
    radii = nodes.CLEARAttention(flux_model("b"), RADIUS, radii="single 0: 2")
    assert torch.equal(sampled(hide_names(radii), SIZE), one_radius)
    assert any("all have one radius" in line for line in lines())
