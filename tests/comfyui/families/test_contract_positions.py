"""What CLEAR does with the positions of every architecture: scaled, exact, around the picture."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import pytest
import torch

from ..flux_runs import with_override
from .zoo import ENTRIES
from .zoo_models import conditioning, latent, present, sampled

THETA = {
    "cosmos_predict2": ("pos_embedder", "h_ntk_factor", "w_ntk_factor", "t_ntk_factor"),
    "omnigen2": ("rope_embedder.rope_embedder", "theta"),
    "boogu": ("rope_embedder.rope_embedder", "theta"),
    "kandinsky5": ("rope_embedder_3d", "theta"),
    "lens": ("pos_embed", "theta"),
    "lumina2": ("rope_embedder", "theta"),
    "z_image": ("rope_embedder", "theta"),
    "wan": ("rope_embedder", "theta"),
    "wan_5b": ("rope_embedder", "theta"),
    "joy_image": ("", "theta"),
    "ideogram4": ("", "rope_theta"),
}
"""Family -> where the host keeps its rotary base; ``pe_embedder.theta`` for all others."""
NO_BASE = {
    "sd3": "SD3 models have no rotary positions",
    "aura_flow": "AuraFlow models have no rotary positions",
    "hidream_o1": "HiDream-O1 models have positions out of reach",
    "pixeldit": "PixelDiT models have positions out of reach",
}
"""Families whose positions nobody scales, and what High Resolution says of them."""
FIXED = {
    **dict.fromkeys(("joy_image", "ideogram4", "hidream_o1", "pixeldit"), "positions out of reach"),
    **dict.fromkeys(("sd3", "aura_flow"), "a learned table of positions"),
}
"""Families whose positions cannot wrap around, and what Seamless says of them."""
SCALED = [name for name in present() if ENTRIES[name].family not in NO_BASE]
PERIODIC = [name for name in present() if ENTRIES[name].family not in FIXED]
BY_IDS = [name for name in PERIODIC if ENTRIES[name].family != "cosmos_predict2"]
TALL = 600
"""Rows of tokens: beyond 256 some collide in bfloat16, all beyond 512 do."""


@pytest.fixture
def zoo_embedder(zoo_model):
    """The host's own embedder of an entry: a run without CLEAR takes everything else away."""

    def embedder(name):
        entry, model = ENTRIES[name], zoo_model(name)
        sampled(model, latent(entry), conditioning(entry, 9))
        path, *_ = THETA.get(entry.family, ("pe_embedder",))
        network = model.model.diffusion_model
        return attrgetter(path)(network) if path else network

    return embedder


def recorded(embedder, run):
    """Return what an embedder was given and what it made of it, call by call."""
    seen = []
    handle = embedder.register_forward_hook(
        lambda _, args, out: seen.append((args[0].clone(), out.clone()))
    )
    try:
        run()
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", SCALED)
def test_a_factor_gives_what_the_host_does_with_that_rotary_base(
    name, zoo_model, zoo_embedder, nodes, monkeypatch
):
    entry, model, host = ENTRIES[name], zoo_model(name), zoo_embedder(name)
    noise, prompt = latent(entry), conditioning(entry, 9)
    plain = sampled(model, noise, prompt)
    twice = nodes.CLEARHighRes(nodes.CLEARHighRes(model, 3.0, False), 10.0, False)
    scaled = sampled(twice, noise, prompt)
    assert sampled(nodes.CLEARHighRes(twice, 1.0, False), noise, prompt).equal(plain)
    assert sampled(model, noise, prompt).equal(plain)
    for attribute in THETA.get(entry.family, ("", "theta"))[1:]:
        monkeypatch.setattr(host, attribute, getattr(host, attribute) * 10.0)
    by_hand = sampled(model, noise, prompt)
    assert scaled.equal(by_hand)
    assert not scaled.equal(plain)


@pytest.mark.parametrize("name", [name for name in present() if ENTRIES[name].family in NO_BASE])
def test_where_there_is_no_base_a_factor_is_refused_and_the_scale_works(name, zoo_model, nodes):
    entry, model = ENTRIES[name], zoo_model(name)
    with pytest.raises(ValueError, match=NO_BASE[entry.family] + ": ntk_factor would have no"):
        nodes.CLEARHighRes(model, 10.0, True)
    noise, prompt = latent(entry), conditioning(entry, 9)
    proportional = sampled(nodes.CLEARHighRes(model, 1.0, True), noise, prompt)
    assert not proportional.equal(sampled(model, noise, prompt))


@pytest.mark.parametrize("name", BY_IDS)
def test_in_bfloat16_each_of_many_rows_has_the_position_that_it_has_in_float32(
    name, fused, zoo_embedder, nodes
):
    entry, model, host = ENTRIES[name], fused(name), zoo_embedder(name)
    noise, prompt = latent(entry, rows=TALL, columns=1), conditioning(entry, 3)
    expected = recorded(host, lambda: sampled(model, noise, prompt))
    for changed in (nodes.CLEARHighRes(model, 1.0, False), nodes.CLEARSeamless(model)):
        changed.set_model_compute_dtype(torch.bfloat16)
        found = recorded(host, lambda changed=changed: sampled(changed, noise, prompt))
        assert len(found) == len(expected)
        for (ids, rotations), (exact, right) in zip(found, expected, strict=True):
            assert ids.double().equal(exact.double())
            assert rotations.equal(right)
        assert max(ids[0].unique(dim=0).shape[0] for ids, _ in found) >= TALL


@pytest.mark.parametrize("name", BY_IDS)
def test_a_seamless_picture_turns_the_grid_alone(name, zoo_model, zoo_embedder, nodes, product):
    """Not text, which may be as long as the grid and embedded by itself."""
    entry, model, host = ENTRIES[name], zoo_model(name), zoo_embedder(name)
    periodic = product("comfyui.positions.periodic").PeriodicEmbedder
    noise, prompt = latent(entry, rows=8, columns=4), conditioning(entry, 32)
    turned = []

    def run():
        seamless = nodes.CLEARSeamless(model)
        (path,) = (p for p, m in seamless.object_patches.items() if isinstance(m, periodic))
        handle = seamless.object_patches[path].register_forward_hook(
            lambda _, args, out: turned.append(out.clone())
        )
        sampled(seamless, noise, prompt)
        handle.remove()

    before = recorded(host, run)
    changed = [
        ids[(out != plain).reshape(*ids.shape[:2], -1).any(-1)]
        for (ids, plain), out in zip(before, turned, strict=True)
    ]
    axes = product("comfyui.families").require_family(model).embedder.axes
    places = torch.cat(changed)[:, list(axes)]
    assert len(places) == len(places.unique(dim=0)) == 8 * 4
    assert [len(places[:, axis].unique()) for axis in (0, 1)] == [8, 4]


@pytest.mark.parametrize("name", [name for name in present() if ENTRIES[name].family in FIXED])
def test_where_positions_cannot_wrap_around_the_report_says_why(
    name, zoo_model, nodes, reports, product
):
    entry, model = ENTRIES[name], zoo_model(name)
    sampled(nodes.CLEARSeamless(model), latent(entry), conditioning(entry, 9))
    (report,) = reports
    title = product("comfyui.families").require_family(model).title
    sentence = f"{title} models have {FIXED[entry.family]}, which cannot wrap around: "
    assert [line for line in report.warned if line.startswith(sentence)]


@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARHighRes", "CLEARSeamless"])
@pytest.mark.parametrize("name", PERIODIC)
def test_a_host_that_has_moved_its_positions_is_refused(
    name, node, zoo_model, nodes, product, monkeypatch
):
    families = product("comfyui.families")
    model = zoo_model(name)
    family = families.require_family(model)
    moved = replace(family, embedder=replace(family.embedder, path="positions.moved"))
    rows = tuple(moved if one is family else one for one in families.FAMILIES)
    monkeypatch.setattr(families, "FAMILIES", rows)
    with pytest.raises(ValueError, match=r"find the positions of .* at positions\.moved, which"):
        getattr(nodes, node)(model, *([3] if node == "CLEARAttention" else []))


def image_alone(product):
    """Return an override by which the picture's tokens see one another alone.

    Text and what is filled up lie at one place, from which a roll of the picture would be seen.
    """
    model_call = product("comfyui.core.calls.model_call")
    read_call = product("comfyui.core.calls.host_call").read_call

    def override(func, *args, **kwargs):
        call = read_call(*args, **kwargs)
        geometry = kwargs["transformer_options"][model_call.CALL_KEY].geometry
        layout = geometry.layout(call.k.shape[2])
        if layout is None or call.k.shape[2] != call.q.shape[2]:
            return func(*args, **kwargs)
        mask = torch.zeros(layout.tokens, layout.tokens)
        mask[layout.image_slice] = -torch.inf
        mask[layout.image_slice, layout.image_slice] = 0
        return func(*args[:4], **{**kwargs, "mask": mask})  # the fourth is that of heads

    return override


@pytest.mark.parametrize("name", PERIODIC)
def test_a_seamless_picture_moves_with_its_latent(name, zoo_model, nodes, product):
    """Text is longer than the picture, so that no call of it can pass for the picture's."""
    entry, model = ENTRIES[name], zoo_model(name)
    model = with_options(model)
    noise, prompt = latent(entry, rows=8, columns=6), conditioning(entry, 21)
    override = image_alone(product)
    moves = (3 * entry.patch, 2 * entry.patch)
    kept = torch.ones(noise.shape[-2:], dtype=torch.bool)
    if name == "radiance":  # whose last convolution sees the picture's edges, and a pixel beside
        kept[[0, -1]] = kept[:, [0, -1]] = False
        kept &= kept.roll(moves, (0, 1))

    def error(model):
        model = with_override(model, override)
        velocity = sampled(model, noise, prompt)
        moved = sampled(model, noise.roll(moves, (-2, -1)), prompt)
        difference = moved - velocity.roll(moves, (-2, -1))
        return difference[..., kept].abs().max() / velocity.abs().max()

    # Angles of the periodic rotations, in float32, through four blocks.
    assert error(nodes.CLEARSeamless(model)) <= 1e-4
    assert error(nodes.CLEARHighRes(nodes.CLEARSeamless(model), 2.0, False)) <= 1e-4
    assert error(nodes.CLEARHighRes(model, 2.0, False)) > 1e-3


def with_options(model):
    model = model.clone()
    model.model_options.setdefault("transformer_options", {})
    return model
