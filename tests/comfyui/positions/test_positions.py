"""Positions beyond 4096 pixels, where bfloat16 integers collide."""

from __future__ import annotations

import importlib.util

import pytest
import torch

PROCESS = "diffusion_model.process_img"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARHighRes"])
def test_every_token_has_a_position_of_its_own(node, dtype, flux_model, nodes):
    model = getattr(nodes, node)(flux_model("a"))
    latent = torch.zeros(1, 16, 1200, 4, dtype=dtype)
    tokens, ids = model.get_model_object(PROCESS)(latent)
    expected = torch.cartesian_prod(torch.arange(600.0), torch.arange(2.0))
    assert tokens.dtype == dtype
    assert torch.equal(ids[0, :, 1:].double(), expected.double())


def test_references_keep_their_offsets(flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("a"))
    latent = torch.zeros(1, 16, 8, 4, dtype=torch.bfloat16)
    _, ids = model.get_model_object(PROCESS)(latent, index=1, h_offset=1024, w_offset=0)
    assert ids[0, :, 0].unique().tolist() == [1.0]
    assert ids[0, :, 1].unique().tolist() == [512.0, 513.0, 514.0, 515.0]


def test_of_two_ntk_factors_the_last_one_wins(flux_model, nodes):
    model = flux_model("a")
    once = nodes.CLEARHighRes(model, 10.0, False)
    twice = nodes.CLEARHighRes(once, 2.0, False)
    theta = [m.get_model_object("diffusion_model.pe_embedder").theta for m in (model, once, twice)]
    assert theta == [10000, 100000, 20000]


def test_ntk_without_an_embedder_to_scale_is_explained(flux_model, nodes):
    model = flux_model("a").clone()
    model.add_object_patch("diffusion_model.pe_embedder", torch.nn.Identity())
    with pytest.raises(ValueError, match=r"Identity .* has no theta to scale"):
        nodes.CLEARHighRes(model, 10.0, True)


@pytest.fixture
def scale_rope(host):
    """The host's own node for positions, as a function; scale and shift of columns, then rows."""
    if importlib.util.find_spec("comfy_extras.nodes_rope") is None:
        pytest.skip("this host has no node for positions")
    from comfy_extras.nodes_rope import ScaleROPE

    return lambda model, *of_axes: ScaleROPE.execute(model, *of_axes, 1.0, 0.0).args[0]


ROPE = (0.5, 3.0, 2.0, -1.5)


def inputs():
    """Return the arguments of `run`: a latent of 12 x 20 tokens, and 9 of text."""
    return {
        "x": torch.randn(1, 16, 24, 40, generator=torch.Generator().manual_seed(0)),
        "timestep": torch.tensor([0.7]),
        "context": torch.zeros(1, 9, 64),
        "y": torch.zeros(1, 32),
    }


def test_the_hosts_rope_scaling_and_ntk_both_take_effect_in_either_order(
    flux_model, nodes, run, scale_rope
):
    from comfy.ldm.flux.layers import EmbedND

    base = flux_model("b")
    orders = (
        nodes.CLEARHighRes(scale_rope(base, *ROPE), 10.0, True),
        scale_rope(nodes.CLEARHighRes(base, 10.0, True), *ROPE),
    )
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: seen.append((args[0], out)) if "theta" in vars(module) else None
    )
    try:
        found = [run(model, **inputs()) for model in orders]
    finally:
        handle.remove()
    y = -1.5 + 2.0 * torch.arange(12.0)
    x = 3.0 + 0.5 * torch.arange(20.0)
    for ids, rotations in seen:
        assert torch.equal(ids[0, 9:], torch.cartesian_prod(torch.zeros(1), y, x))
        own = EmbedND(dim=128, theta=100_000.0, axes_dim=[16, 56, 56])
        torch.testing.assert_close(rotations, own(ids), atol=0, rtol=0)
    assert len(seen) == 2
    assert torch.equal(*found)
    for alone in (nodes.CLEARHighRes(base, 10.0, True), scale_rope(base, *ROPE)):
        assert not torch.allclose(run(alone, **inputs()), found[0], atol=1e-3)


def test_the_hosts_rope_scaling_and_seamless_both_take_effect_in_either_order(
    flux_model, nodes, run, scale_rope
):
    from .test_seamless import CLOSE, rolled, without_text

    base, arguments, shift = flux_model("b"), without_text(), (6, 10)
    first = scale_rope(nodes.CLEARSeamless(base), *ROPE)
    second = nodes.CLEARSeamless(scale_rope(base, *ROPE))
    velocity = run(first, **arguments)
    assert torch.equal(run(second, **arguments), velocity)
    assert not torch.allclose(run(nodes.CLEARSeamless(base), **arguments), velocity, atol=1e-3)
    arguments["x"] = rolled(arguments["x"], shift)
    torch.testing.assert_close(run(first, **arguments), rolled(velocity, shift), **CLOSE)
