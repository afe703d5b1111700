"""What tells one MODEL from another, in plain values."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def traits(product):
    return product("comfyui.parallel.cluster.traits").traits


@pytest.fixture
def difference(product, traits):
    """The first difference of two MODELs."""
    first = product("comfyui.parallel.cluster.traits").first_difference
    return lambda here, there: first(traits(here), traits(there))


WEIGHT = "diffusion_model.double_blocks.0.img_attn.qkv.weight"


def patched(model, strength=1.0, **options):
    model = model.clone()
    model.add_patches({WEIGHT: (torch.zeros(384, 128),)}, strength)
    return model


def test_a_clone_and_a_model_made_again_are_the_same(difference, flux_model, nodes):
    one, other = (nodes.CLEARAttention(flux_model("b"), radius=3) for _ in range(2))
    assert difference(one, one.clone()) is None
    assert difference(one, other) is None


CHANGES = {
    "another network": (lambda model, nodes, make: make("a"), "its size"),
    "another type": (lambda model, nodes, make: make("b", torch.bfloat16), "the type"),
    "a patch": (lambda model, nodes, make: patched(model), f"the patches of {WEIGHT}"),
    "a window": (lambda model, nodes, make: nodes.CLEARAttention(model, radius=3), "clear"),
    "positions": (lambda model, nodes, make: nodes.CLEARHighRes(model, 2.0), "is"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_numbers_is_seen(change, difference, flux_model, nodes):
    base = flux_model("b")
    changed, said = CHANGES[change]
    found = difference(base, changed(base, nodes, flux_model))
    assert found is not None
    assert said in found


def test_another_strength_and_another_radius_are_seen(difference, flux_model, nodes):
    base = flux_model("b")
    assert "at strengths 0.5" in difference(patched(base), patched(base, 0.5))
    three, four = (nodes.CLEARAttention(base, radius=radius) for radius in (3, 4))
    assert "radius is 4 (here 3)" in difference(three, four)


def test_what_acts_at_the_sampler_alone_is_not_seen(difference, flux_model):
    base = flux_model("b")
    guided = base.clone()
    guided.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    assert difference(base, guided) is None


def test_traits_are_plain(traits, flux_model, nodes):
    found = traits(patched(nodes.CLEARAttention(flux_model("b"), radius=3, pool_factor=2)))
    assert {type(one) for item in found.items() for one in item} == {str}
