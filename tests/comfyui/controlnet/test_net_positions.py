"""Rotary positions inside FLUX ControlNets: exact at any size, and scaled as the model's are."""

from __future__ import annotations

import math

import pytest
import torch

from ..controlnet_fixtures import assert_same, call_of, hint_for

WIDE = (4, 1100)  # 2 x 550 tokens: in bfloat16, integers above 256 collide
TEXT = 24


@pytest.fixture
def seen(monkeypatch):
    """The rotary positions that a net's first block gets."""

    def watch(net):
        positions = []
        net.control_model.double_blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: positions.append(kwargs["pe"].clone()), with_kwargs=True
        )
        return positions

    return watch


def embedded(theta, height, width):
    """Return the positions of text and grid, from the host's own embedder."""
    from comfy.ldm.flux.layers import EmbedND

    grid = [[0, y, x] for y in range(height) for x in range(width)]
    ids = torch.tensor([[0, 0, 0]] * TEXT + grid, dtype=torch.float32)
    return EmbedND(dim=128, theta=theta, axes_dim=[16, 56, 56])(ids[None])


def cast(call, dtype):
    return {**call, "x": call["x"].to(dtype)}


def test_positions_are_exact_where_the_hosts_own_collide(make_control_net, nodes, residuals, seen):
    net = make_control_net("instantx", torch.bfloat16)
    positions, call = seen(net), call_of("instantx", WIDE)
    hint = hint_for("instantx", WIDE)
    residuals(nodes.CLEARControlNet(net, 8).copy().set_cond_hint(hint), **call)
    residuals(net.copy().set_cond_hint(hint), **call)
    ours, hosts = positions
    exact = embedded(10000, WIDE[0] // 2, WIDE[1] // 2)
    assert torch.equal(ours, exact)
    assert not torch.equal(hosts, exact)


@pytest.mark.parametrize("ntk_factor", [1.0, 4.0, 0.0])
def test_the_base_is_scaled_by_a_factor_or_as_the_models(
    ntk_factor, make_control_net, nodes, residuals, seen, flux_model
):
    """A factor of 0 takes what CLEAR High Resolution has set, here 10."""
    net, size = make_control_net("instantx"), (10, 12)
    positions, call = seen(net), call_of("instantx", size)
    model = nodes.CLEARHighRes(flux_model("b"), 10.0, proportional_attention=False)
    made = nodes.CLEARControlNet(net, 8, ntk_factor=ntk_factor).copy()
    residuals(made.set_cond_hint(hint_for("instantx", size)), **call, model=model)
    assert torch.equal(positions[0], embedded(10000 * (ntk_factor or 10), 5, 6))
    assert net.control_model.pe_embedder.theta == 10000


def test_a_model_whose_positions_have_no_base_leaves_the_nets(
    make_control_net, nodes, residuals, flux_model
):
    size, model = (10, 12), flux_model("b")
    net, call = make_control_net("instantx"), call_of("instantx", size)
    hint = hint_for("instantx", size)
    own = residuals(net.copy().set_cond_hint(hint), **call)
    local = nodes.CLEARControlNet(net, 0).copy().set_cond_hint(hint)
    model.model.diffusion_model.pe_embedder = torch.nn.Identity()
    assert_same(residuals(local, **call, model=model), own)


def test_a_net_whose_own_positions_have_no_base_keeps_them(
    make_control_net, nodes, residuals, seen
):
    net, size = make_control_net("instantx"), (10, 12)
    embedder = net.control_model.pe_embedder
    net.control_model.pe_embedder = Embedder(embedder)
    positions, call = seen(net), call_of("instantx", size)
    made = nodes.CLEARControlNet(net, 4, ntk_factor=4.0).copy()
    residuals(made.set_cond_hint(hint_for("instantx", size)), **call)
    assert torch.equal(positions[0], embedded(10000, 5, 6))


class Embedder(torch.nn.Module):
    """Another's, with a base that is not where the host's has it."""

    def __init__(self, host_own):
        super().__init__()
        self.host_own = host_own

    def forward(self, ids):
        return self.host_own(ids)


def test_proportional_attention_is_taken_from_the_model(
    make_control_net, nodes, residuals, flux_model
):
    size = (10, 12)
    net, call = make_control_net("instantx"), call_of("instantx", size)
    model = nodes.CLEARHighRes(flux_model("b"), 1.0, proportional_attention=True)
    hint = hint_for("instantx", size)
    whole = nodes.CLEARControlNet(net, 64).copy().set_cond_hint(hint)
    none = nodes.CLEARControlNet(net, 0).copy().set_cond_hint(hint)
    plain = residuals(whole, **call)
    scaled, dense = residuals(whole, **call, model=model), residuals(none, **call, model=model)
    for one, other, third in zip(scaled["input"], dense["input"], plain["input"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(one, third, atol=1e-3)


@pytest.mark.parametrize("ntk_factor", [1.0, 4.0])
def test_where_the_model_wraps_around_the_net_does_too(
    ntk_factor, make_control_net, nodes, residuals, seen, flux_model
):
    """Its last column lies as far from the first as any from the next; rows stay as they are."""
    net, size = make_control_net("instantx"), (10, 28)
    positions, call, hint = seen(net), call_of("instantx", size), hint_for("instantx", size)
    made = nodes.CLEARControlNet(net, 3, ntk_factor=ntk_factor).copy().set_cond_hint(hint)
    model = nodes.CLEARSeamless(flux_model("b"), "horizontal")
    wrapped = residuals(made, **call, model=model)
    plain = residuals(made, **call)

    def angles(pe):
        grid = pe[0, 0, TEXT:].unflatten(0, (5, 14))
        return torch.atan2(grid[..., 1, 0], grid[..., 0, 0])

    steps = angles(positions[0]).roll(-1, 1) - angles(positions[0])
    off = steps - steps[:, :1]
    assert (off - math.tau * (off / math.tau).round()).abs().max() < 1e-4
    rows = slice(8, 36)
    assert torch.equal(angles(positions[0])[..., rows], angles(positions[1])[..., rows])
    assert not torch.allclose(wrapped["input"][0], plain["input"][0], atol=1e-3)


def test_a_window_of_its_own_wraps_as_the_models_does(host):
    from clear_attention.comfyui.controlnet.settings import ControlSettings
    from clear_attention.comfyui.core.settings import Settings

    window = ControlSettings(radius=3).attention(Settings(wrap_width=True)).window_of(None)
    assert (window.radius, window.wrap_height, window.wrap_width) == (3, False, True)


def test_ids_of_text_stay_and_the_given_tensor_too(host):
    from clear_attention.comfyui.core.exact_positions import exact_ids
    from clear_attention.comfyui.core.geometry import Geometry

    ids = torch.full((2, 3 + 6, 3), 7.0)
    exact = exact_ids(ids, Geometry(2, 3), (1, 2))
    assert (ids == 7).all()
    assert (exact[:, :3] == 7).all()
    assert exact[1, 3:, 1].tolist() == [0, 0, 0, 1, 1, 1]
    assert exact[1, 3:, 2].tolist() == [0, 1, 2, 0, 1, 2]
    assert (exact[:, 3:, 0] == 7).all()
