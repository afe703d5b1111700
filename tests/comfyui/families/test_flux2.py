"""CLEAR on FLUX.2 in the real host: FLUX's class, a latent pixel for a token, four axes of ids."""

from __future__ import annotations

import pytest
import torch

from ..flux2_fixtures import PADDED, inputs
from ..flux_runs import (
    conditioning,
    dense_override,
    disc_bias,
    recorded_ids,
    window_by_hand,
    with_override,
)
from ..low_memory_fixtures import SLICE, same

RADIUS = 4
LARGE = (13, 9)  # references: of any size, also larger than the picture


def assert_close(actual, expected):
    """Compare two results in float32: attention's rounding through three blocks."""
    assert actual.isfinite().all()
    assert (actual - expected).abs().max() <= 3e-6 * expected.abs().max()


def sampled(model, size=(13, 9), batch=1, words=(24, 530)):
    """Sample two steps with CFG; the host pads one of the two prompts."""
    import comfy.samplers

    noise = torch.randn(batch, 128, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return comfy.samplers.sample(
            model,
            noise,
            conditioning(words[0], 2),
            conditioning(words[1], 3),
            2.0,
            torch.device("cpu"),
            comfy.samplers.sampler_object("euler"),
            torch.linspace(1.0, 0.0, 3),
            latent_image=torch.zeros_like(noise),
            model_options=model.model_options,
            disable_pbar=True,
            seed=4,
        )


@pytest.mark.parametrize("name", ["klein", "dev"])
@pytest.mark.parametrize(("size", "batch"), [((13, 9), 1), ((7, 11), 2), ((8, 8), 2)], ids=str)
def test_a_sampled_window_over_the_whole_grid_equals_full_attention(
    name, size, batch, flux2_model, nodes
):
    model = flux2_model(name)
    local = nodes.CLEARAttention(model, 64)
    assert_close(sampled(local, size, batch), sampled(model, size, batch))


@pytest.mark.parametrize("backend", ["auto", "tiled", "masked"])
def test_a_sampled_window_equals_a_mask_written_by_hand(backend, flux2_model, nodes):
    model = flux2_model("dev")
    expected = sampled(with_override(model, window_by_hand(13, 9)))
    local = sampled(nodes.CLEARAttention(model, RADIUS, backend=backend))
    assert_close(local, expected)
    assert (local - sampled(model)).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", ["one block", "one single block"])
def test_exactly_the_disc_reacts_to_one_changed_latent_pixel(name, flux2_model, nodes, run):
    """In one block, where nothing reaches a token through the text."""
    model, arguments = nodes.CLEARAttention(flux2_model(name), RADIUS), inputs(12, 10)
    before = run(model, **arguments)
    changed = {**arguments, "x": arguments["x"].clone()}
    changed["x"][..., 5, 4] += 5.0
    untouched = (run(model, **changed) == before).all(dim=1)[0]
    y, x = torch.arange(12)[:, None] - 5, torch.arange(10) - 4
    assert torch.equal(untouched, y * y + x * x >= RADIUS * RADIUS)


@pytest.mark.parametrize("method", [None, "offset", "uxo"])
@pytest.mark.parametrize("sizes", [[(6, 5)], [(3, 7), (14, 11)]], ids=str)
def test_references_lie_behind_and_are_seen_by_all(sizes, method, flux2_model, nodes, run):
    generator = torch.Generator().manual_seed(7)
    latents = [torch.randn(1, 128, *size, generator=generator) for size in sizes]
    given = {} if method is None else {"ref_latents_method": method}
    arguments = {**inputs(), "ref_latents": latents, **given}
    tokens = sum(height * width for height, width in sizes)
    bias = disc_bias(40, 13, 9, references=tokens)
    model = flux2_model()
    expected = run(with_override(model, dense_override(bias)), **arguments)
    local = run(nodes.CLEARAttention(model, RADIUS), **arguments)
    assert_close(local, expected)
    without = run(nodes.CLEARAttention(model, RADIUS), **inputs())
    assert not torch.allclose(local, without, atol=1e-3)


@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARSeamless"])
def test_every_token_beyond_4096_pixels_has_a_position_of_its_own(node, flux2_model, nodes, run):
    model = getattr(nodes, node)(flux2_model("one block"))
    arguments = {
        key: value if key == "timestep" else value.bfloat16()
        for key, value in inputs(height=600, width=2, text=3).items()
    }
    model.set_model_compute_dtype(torch.bfloat16)
    ids = recorded_ids(model, run, arguments)
    expected = torch.cartesian_prod(torch.arange(600.0), torch.arange(2.0))
    assert torch.equal(ids[0, 3:, 1:3].double(), expected.double())
    assert ids[0, :3, 3].tolist() == [0, 1, 2] and not ids[0, 3:, 3].any()


def test_the_rotary_base_is_scaled_and_the_last_factor_wins(flux2_model, nodes, run):
    model, arguments = flux2_model(), inputs()
    once = nodes.CLEARHighRes(model, 10.0, False)
    twice = nodes.CLEARHighRes(once, 2.0, False)
    path = "diffusion_model.pe_embedder"
    theta = [each.get_model_object(path).theta for each in (model, once, twice)]
    assert theta == [2000, 20000, 4000]
    by_hand = flux2_model()
    by_hand.model.diffusion_model.pe_embedder.theta = 20000
    expected = run(by_hand, **arguments)
    assert torch.equal(run(once, **arguments), expected)
    assert not torch.allclose(run(model, **arguments), expected, atol=1e-3)


@pytest.mark.parametrize("axis", [2, 3], ids=["rows", "columns"])
def test_a_seamless_picture_moves_with_its_latent(axis, flux2_model, nodes, run):
    """Without the text, which lies at one place, from which a roll would be seen."""
    direction = {2: "vertical", 3: "horizontal"}[axis]
    model = nodes.CLEARSeamless(nodes.CLEARAttention(flux2_model(), RADIUS), direction)
    mask = torch.zeros(1, 121, 121)
    mask[:, 1:, :1] = -torch.inf
    arguments = {**inputs(12, 10, text=1), "attention_mask": mask}
    velocity = run(model, **arguments)
    moved = {**arguments, "x": arguments["x"].roll(3, axis)}
    difference = run(model, **moved) - velocity.roll(3, axis)
    # Angles of the periodic rotations, in float32, through three blocks.
    assert difference.abs().max() <= 1e-4 * velocity.abs().max()
    across = {**arguments, "x": arguments["x"].roll(3, 5 - axis)}
    difference = run(model, **across) - velocity.roll(3, 5 - axis)
    assert difference.abs().max() > 1e-2 * velocity.abs().max()


@pytest.mark.parametrize("name", ["klein", "dev"])
@pytest.mark.parametrize("batch", [1, 2])
def test_blocks_in_slices_give_the_same(name, batch, flux2_model, nodes, run, lengths):
    model, arguments = flux2_model(name), inputs(19, 21, text=70, batch=batch)
    expected = run(model, **arguments)
    lengths.clear()
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), expected)
    assert max(lengths) == SLICE


def test_blocks_whose_references_have_a_timestep_of_their_own_stay_whole(
    flux2_model, product, host
):
    """Newer hosts then give the modulations of both timesteps, one picture behind the other."""
    slicing = product("comfyui.slicing.flux")
    block = flux2_model().model.diffusion_model.single_blocks[0]
    mods = [torch.zeros(2, 1, 128)] * 3
    args = {
        "img": torch.zeros(1, 8, 128),
        "vec": slicing.layers.ModulationOut(*mods),
        "pe": None,
        "transformer_options": {},
    }
    assert slicing.why_not(block, args) == "its references have a timestep of their own"


def test_the_plan_counts_tokens_of_one_latent_pixel(flux2_model, product):
    planner = product("comfyui.plan.model")
    for size, grid in (((208, 144), (13, 9)), ((1024, 1040), (64, 65)), ((100, 100), (7, 7))):
        plan = planner.plan_model(flux2_model(), size, text_tokens=PADDED)
        layout = plan.job.layout
        assert (layout.text, layout.height, layout.width) == (PADDED, *grid)
        assert plan.token_px == 16
    assert "FLUX.2, 1 double + 2 single attentions of 1 heads x 128" in plan.table()
    assert "tokens of 16 pixels" in plan.table()


def test_flux_1_and_its_controlnets_stay_what_they_are(flux_model, make_control_net, product):
    families = product("comfyui.families")
    nets = [make_control_net("instantx").control_model, flux_model("a").model.diffusion_model]
    assert [families.family_of(net).title for net in nets] == ["FLUX", "FLUX"]
