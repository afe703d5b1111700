"""Positions beyond 4096 pixels, where bfloat16 integers collide."""

from __future__ import annotations

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
