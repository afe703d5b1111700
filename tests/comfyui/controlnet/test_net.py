"""CLEAR ControlNet in the real host: what it computes, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ..controlnet_fixtures import (
    FLUX_NETS,
    SD3_NETS,
    assert_same,
    call_of,
    flat,
    flux_net,
    hint_for,
)
from ..flux_runs import dense_override, disc_bias

SIZE = (20, 26)  # 10 x 13 tokens
RADIUS = 4
NETS = (*FLUX_NETS, *SD3_NETS)


def shown(net, name, size=SIZE, strength=1.0, seed=5):
    return net.copy().set_cond_hint(hint_for(name, size, seed), strength)


def close(a, b):
    """Float32 rounding through a handful of layers, relative to the largest value."""
    for one, other in zip(flat(a), flat(b), strict=True):
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


def hooks(network):
    return [
        module
        for module in network.modules()
        if module._forward_pre_hooks
        or module._forward_hooks
        or module._forward_pre_hooks_with_kwargs
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_window_over_the_whole_grid_equals_the_hosts_own_net(
    name, make_control_net, nodes, residuals
):
    net, call = make_control_net(name), call_of(name, SIZE)
    own = residuals(shown(net, name), **call)
    local = residuals(shown(nodes.CLEARControlNet(net, 64), name), **call)
    close(local, own)


@pytest.mark.parametrize("size", [(21, 17), (2, 40), (6, 6)], ids=str)
def test_latents_of_any_shape_and_a_batch_run(size, make_control_net, nodes, residuals):
    net, call = make_control_net("instantx"), call_of("instantx", size, batch=2)
    own = residuals(shown(net, "instantx", size), **call)
    close(residuals(shown(nodes.CLEARControlNet(net, 64), "instantx", size), **call), own)


@pytest.mark.parametrize("name", ["xlabs", "mistoline"])
def test_a_net_that_is_shown_pictures_refuses_odd_sides_in_a_sentence(
    name, make_control_net, nodes, residuals
):
    net = nodes.CLEARControlNet(make_control_net(name), RADIUS)
    sentence = r"must have sides that are multiples of 16 pixels, got 136 x 160\. Change the size"
    with pytest.raises(ValueError, match=sentence):
        residuals(shown(net, name, (20, 17)), **call_of(name, (20, 17)))
    assert residuals(shown(net, name), **call_of(name, SIZE))


@pytest.mark.parametrize("backend", ["auto", "tiled", "reference"])
@pytest.mark.parametrize("name", ["instantx", "union", "xlabs", "3-medium"])
def test_the_window_equals_a_mask_written_by_hand(
    name, backend, make_control_net, nodes, residuals
):
    net, call = make_control_net(name), call_of(name, SIZE)
    local = nodes.CLEARControlNet(net, RADIUS, backend=backend)
    if name == "union":  # one token for the mode is put in front of the text
        net.set_extra_arg("control_type", [2])
        local.set_extra_arg("control_type", [2])
    text = 24 + (name == "union")
    bias = disc_bias(text, SIZE[0] // 2, SIZE[1] // 2, radius=RADIUS)
    masked = dense_override(bias)
    if name in SD3_NETS:
        masked = three_dimensional(masked)
    found = residuals(shown(local, name), **call)
    with given_to_blocks(net.control_model, {"optimized_attention_override": masked}):
        expected = residuals(shown(net, name), **call)
    close(found, expected)
    with pytest.raises(AssertionError):
        close(found, residuals(shown(net, name), **call))


def three_dimensional(override):
    def run(func, q, k, v, heads, **kwargs):
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
        return override(func, q, k, v, heads)

    return run


class given_to_blocks:
    """Gives options to blocks by replacing their `forward`, as CLEAR does not."""

    def __init__(self, network, options):
        names = ("double_blocks", "single_blocks", "joint_blocks")
        self.blocks = [block for name in names for block in getattr(network, name, ())]
        self.options = options

    def __enter__(self):
        for block in self.blocks:
            forward = block.forward
            block.forward = lambda *args, _forward=forward, **kwargs: _forward(
                *args, **kwargs, transformer_options=self.options
            )

    def __exit__(self, *_):
        for block in self.blocks:
            del block.forward


@pytest.mark.parametrize("name", ["instantx", "union", "3-medium"])
def test_tokens_outside_the_window_have_no_effect(name, make_control_net, nodes, residuals):
    local = nodes.CLEARControlNet(make_control_net(name), RADIUS)
    call = call_of(name, SIZE)
    before = residuals(shown(local, name), **call)
    call["x"][:, :, 0, 0] += 3.0  # in token (0, 0)
    after = residuals(shown(local, name), **call)
    # Text sees all, and hands on what it saw to the next block: the first residual only.
    kind = "input" if name in FLUX_NETS else "output"
    rows, columns = SIZE[0] // 2, SIZE[1] // 2
    first = [out[kind][0].unflatten(1, (rows, columns)) for out in (before, after)]
    far = torch.tensor(
        [[y * y + x * x >= RADIUS * RADIUS for x in range(columns)] for y in range(rows)]
    )
    assert torch.equal(first[0][:, far], first[1][:, far])
    assert ((first[0] != first[1]).any(-1)[0] == ~far).all()


@pytest.mark.parametrize("name", ["union", "3.5-medium"])
def test_the_original_is_untouched_before_between_and_after(
    name, make_control_net, nodes, residuals
):
    net, call = make_control_net(name), call_of(name, SIZE)
    weights = copy.deepcopy(net.control_model.state_dict())
    fields = dict(vars(net))
    before = residuals(shown(net, name), **call)
    local = nodes.CLEARControlNet(net, RADIUS)
    between = residuals(shown(net, name), **call)
    window = residuals(shown(local, name), **call)
    after = residuals(shown(net, name), **call)
    assert_same(before, between)
    assert_same(before, after)
    assert any(not torch.equal(a, b) for a, b in zip(flat(before), flat(window), strict=True))
    assert not hooks(net.control_model)
    assert vars(net) == fields
    assert local.control_model is net.control_model
    assert local.get_models() == net.get_models()
    for key, tensor in net.control_model.state_dict().items():
        assert torch.equal(tensor, weights[key])


def test_what_stops_a_call_leaves_nothing_behind(make_control_net, nodes, residuals):
    net, call = make_control_net("instantx"), call_of("instantx", SIZE)
    own = residuals(shown(net, "instantx"), **call)
    first = shown(make_control_net("instantx"), "instantx")
    local = shown(nodes.CLEARControlNet(net, RADIUS), "instantx").set_previous_controlnet(first)
    stop = net.control_model.single_blocks[0].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        residuals(local, **call)
    stop.remove()
    assert not hooks(net.control_model)
    assert local.previous_controlnet is first
    assert_same(residuals(shown(net, "instantx"), **call), own)


def interrupt(*_):
    raise KeyboardInterrupt


def test_what_a_net_tells_its_blocks_itself_stays_beside_ours(host):
    from clear_attention.comfyui.core.blocks import BLOCK_KEY, tell_blocks
    from clear_attention.comfyui.families.flux import FLUX

    class Block(nn.Module):
        def forward(self, **kwargs):
            return kwargs

    def options(**kwargs):
        told = block(**kwargs)["transformer_options"]
        assert told.pop(BLOCK_KEY).attention == ("double", 0)
        return told

    network = nn.Module()
    network.double_blocks = nn.ModuleList([Block()])
    block, given = network.double_blocks[0], {"ours": 0, "its own": 2}
    with tell_blocks(FLUX, network, {}, {"ours": 1}):
        assert options(transformer_options=given) == {"ours": 1, "its own": 2}
        for none in ({}, {"transformer_options": None}):
            assert options(**none) == {"ours": 1}
    assert given == {"ours": 0, "its own": 2}
    assert block() == {}


def test_the_later_of_two_nodes_wins(make_control_net, nodes, residuals):
    net, call = make_control_net("instantx"), call_of("instantx", SIZE)
    one = nodes.CLEARControlNet(net, RADIUS)
    assert_same(
        residuals(
            shown(nodes.CLEARControlNet(nodes.CLEARControlNet(net, 2), RADIUS), "instantx"), **call
        ),
        residuals(shown(one, "instantx"), **call),
    )


def test_outside_its_percents_it_is_not_asked(make_control_net, nodes, residuals, monkeypatch):
    net = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    monkeypatch.setattr(net.control_model, "forward", interrupt)
    late = net.copy().set_cond_hint(hint_for("instantx", SIZE), 1.0, (0.9, 1.0))
    call = call_of("instantx", SIZE)
    first = nodes.CLEARControlNet(make_control_net("instantx"), RADIUS)
    expected = residuals(shown(first, "instantx"), **call)
    assert_same(residuals(late.set_previous_controlnet(shown(first, "instantx")), **call), expected)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_blocks = nn.ModuleList()


def test_what_has_no_attention_to_reach_is_refused_in_one_sentence(make_control_net, nodes):
    import comfy.controlnet as host

    net = make_control_net("instantx")
    embedder = type("ControlNetEmbedder", (nn.Module,), {})()
    foreign = type("ControlNetAdvanced", (host.ControlNet,), {})(flux_net("instantx"))
    refused = {
        r"^A T2I adapter has no attention .* Remove CLEAR ControlNet": host.T2IAdapter(
            None, 3, 8, "nearest", torch.device("cpu")
        ),
        r"^A Control-LoRA is for UNet models": host.ControlLora({}),
        r"^This ControlNet is for UNet models \(SD1.5, SDXL\)": host.ControlNet(UNet()),
        r"^ControlNets for SD3.5 Large \(8B\) keep full attention": host.ControlNetSD35(embedder),
        r"ControlNets of FLUX, Chroma, SD3 and Qwen-Image, got Linear": host.ControlNet(
            nn.Linear(1, 1)
        ),
        r"got the ControlNetAdvanced of another node pack": foreign,
    }
    for sentence, control_net in refused.items():
        with pytest.raises(ValueError, match=sentence):
            nodes.CLEARControlNet(control_net, RADIUS)
    nodes.CLEARControlNet(net, RADIUS)
