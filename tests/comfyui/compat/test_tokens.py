"""More than text and a picture: Kontext's references, Redux, Fill, Canny and Depth, regions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ..flux_runs import (
    RADIUS,
    by_length,
    conditioning,
    disc_bias,
    inputs,
    sampled,
    window_by_hand,
    with_override,
)

SIZE = (26, 20)
GRID = (13, 10)
IMAGE = 130
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
REFERENCES = {  # latent sizes -> tokens
    "none": ([], 0),
    "one": ([(16, 12)], 48),
    "two odd ones": ([(11, 7), (6, 13)], 24 + 21),
    "larger than the picture": ([(40, 32)], 320),
}


def references_of(sizes):
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(1, 16, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
@pytest.mark.parametrize("case", REFERENCES)
def test_references_are_seen_by_all_however_they_are_placed(case, method, flux_model, nodes, run):
    sizes, tokens = REFERENCES[case]
    given = inputs() | {"ref_latents": references_of(sizes), "ref_latents_method": method}
    by_hand = with_override(flux_model("b"), window_by_hand(12, 9, tokens))
    local = run(nodes.CLEARAttention(flux_model("b"), RADIUS), **given)
    torch.testing.assert_close(local, run(by_hand, **given), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_kontext_with_references_on_one_side_of_cfg(batch, flux_model, nodes, lines):
    from comfy_extras.nodes_edit_model import ReferenceLatent

    positive = conditioning(40, 2)
    for latent in references_of([(16, 12), (11, 7)]):
        positive = ReferenceLatent.execute(positive, {"samples": latent}).args[0]
    references, given = 48 + 24, {"positive": positive, "batch": batch}
    biases = {
        40 + IMAGE + references: disc_bias(40, *GRID, references),
        56 + IMAGE: disc_bias(56, *GRID),
    }
    expected = sampled(with_override(flux_model("b"), by_length(biases)), SIZE, **given)
    local = nodes.CLEARAttention(flux_model("b"), RADIUS)
    torch.testing.assert_close(sampled(local, SIZE, **given), expected, **TOLERANCE)
    assert any("40 text + 13 x 10 image + 72 reference tokens" in line for line in lines())


# What such a model takes beside the picture's 16 channels.
CHANNELS = {
    "Canny or Depth": (16, {"concat_latent_image": torch.ones(1, 16, 26, 20)}),
    "Fill": (
        16 + 64,
        {
            "concat_latent_image": torch.ones(1, 16, 26, 20),
            "concat_mask": torch.linspace(0, 1, 160).expand(1, 1, 208, 160),
        },
    ),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_beside_the_picture_do_not_change_the_grid(name, flux_model, nodes):
    channels, values = CHANNELS[name]
    model = flux_model("b")
    wide = torch.nn.Linear(4 * (16 + channels), 128)
    with torch.no_grad():
        wide.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(5))
    model.model.diffusion_model.img_in = wide
    given = {"positive": conditioning(40, 2, **values)}
    expected = sampled(with_override(model, window_by_hand(*GRID)), SIZE, **given)
    local = nodes.CLEARAttention(model, RADIUS)
    torch.testing.assert_close(sampled(local, SIZE, **given), expected, **TOLERANCE)
    assert not torch.allclose(sampled(local, SIZE), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("strength", "kind"), [(1.0, "multiply"), (0.6, "multiply"), (0.3, "attn_bias")]
)
def test_redux_tokens_count_as_text_at_any_strength(strength, kind, flux_model, nodes):
    import nodes as host_nodes

    style = torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(6))
    model = SimpleNamespace(get_cond=lambda output: style.clone())
    (positive,) = host_nodes.StyleModelApply().apply_stylemodel(
        conditioning(40, 2), model, None, strength, kind
    )
    assert positive[0][0].shape[1] == 47
    expected = sampled(
        with_override(flux_model("b"), window_by_hand(*GRID)), SIZE, positive=positive
    )
    local = sampled(nodes.CLEARAttention(flux_model("b"), RADIUS), SIZE, positive=positive)
    torch.testing.assert_close(local, expected, **TOLERANCE)
    plain = sampled(nodes.CLEARAttention(flux_model("b"), RADIUS), SIZE)
    assert not torch.allclose(plain, expected, atol=1e-3)


def regions():
    """Return a mask in which each half of the picture sees its own half of the prompt."""
    tokens = 40 + IMAGE
    sees = torch.ones(tokens, tokens, dtype=torch.bool)
    left = torch.arange(IMAGE) % GRID[1] < 5
    sees[40:, :20] = left[:, None]
    sees[40:, 20:40] = ~left[:, None]
    return torch.zeros(1, tokens, tokens).masked_fill(~sees, -torch.inf)


@pytest.mark.parametrize("batch", [1, 2])
def test_regions_of_the_prompt_lie_on_top_of_the_window(
    batch,
    flux_model,
    nodes,
    lines,
):
    values = {"attention_mask": regions(), "attention_mask_img_shape": GRID}
    given = {"positive": conditioning(40, 2, **values), "batch": batch}
    expected = sampled(with_override(flux_model("b"), window_by_hand(*GRID)), SIZE, **given)
    local = nodes.CLEARAttention(flux_model("b"), RADIUS)
    torch.testing.assert_close(sampled(local, SIZE, **given), expected, **TOLERANCE)
    assert any("an attention mask over pictures costs more" in line for line in lines())
    without = sampled(local, SIZE, batch=batch)
    assert not torch.allclose(without, expected, atol=1e-3)


# The host calls the model on a part of the latent, also with the other prompts.
PARTS = {
    text + height * width: disc_bias(text, height, width)
    for text in (40, 44, 56)
    for height, width in (GRID, (8, 10))
}


def test_prompts_for_areas_have_the_grid_of_their_area(flux_model, nodes, lines):
    positive = conditioning(40, 2, area=(16, 20, 4, 0), strength=1.0) + conditioning(44, 5)
    by_hand = with_override(flux_model("b"), by_length(PARTS))
    expected = sampled(by_hand, SIZE, positive=positive)
    local = nodes.CLEARAttention(flux_model("b"), RADIUS)
    torch.testing.assert_close(sampled(local, SIZE, positive=positive), expected, **TOLERANCE)
    assert any("40 text + 8 x 10 image tokens" in line for line in lines())


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bounds"])
def test_prompts_for_masks_have_the_grid_of_their_call(whole, flux_model, nodes):
    from node_helpers import conditioning_set_values

    mask = torch.zeros(1, *SIZE)
    mask[:, 10:, :] = 1.0
    values = {"mask": mask, "set_area_to_bounds": not whole, "mask_strength": 0.8}
    positive = conditioning_set_values(conditioning(40, 2), values) + conditioning(44, 5)
    by_hand = with_override(flux_model("b"), by_length(PARTS))
    expected = sampled(by_hand, SIZE, positive=positive)
    local = nodes.CLEARAttention(flux_model("b"), RADIUS)
    torch.testing.assert_close(sampled(local, SIZE, positive=positive), expected, **TOLERANCE)


def test_a_picture_added_to_the_tokens_of_a_block_stays(flux_model, nodes, run):
    """As IP-Adapters and PuLID do it, between the blocks."""

    features = torch.randn(1, 12 * 9, 128, generator=torch.Generator().manual_seed(7))

    def add(args, extra):
        out = extra["original_block"](args)
        return out | {"img": out["img"] + features}

    model = flux_model("b").clone()
    model.set_model_patch_replace(add, "dit", "double_block", 0)
    by_hand = with_override(model, window_by_hand(12, 9))
    local = run(nodes.CLEARAttention(model, RADIUS), **inputs())
    torch.testing.assert_close(local, run(by_hand, **inputs()), atol=2e-5, rtol=2e-5)
    assert not torch.allclose(
        local, run(nodes.CLEARAttention(flux_model("b"), RADIUS), **inputs()), atol=1e-3
    )
