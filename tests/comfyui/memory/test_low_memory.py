"""CLEAR Low Memory in the real host: blocks in slices give what whole ones give."""

from __future__ import annotations

import pytest
import torch

from ..families import test_sd3 as sd3
from ..flux_runs import inputs
from ..low_memory_fixtures import RADIUS, SLICE, same


def with_lora(model):
    """Return a clone with low-rank patches on layers of both kinds of blocks."""
    model = model.clone()
    generator = torch.Generator().manual_seed(5)
    patches = {}
    for name in (
        "double_blocks.0.img_mlp.0",
        "double_blocks.0.img_attn.qkv",
        "single_blocks.0.linear1",
    ):
        key = f"diffusion_model.{name}.weight"
        weight = model.model_state_dict()[key]
        patches[key] = (0.05 * torch.randn(weight.shape, generator=generator),)
    assert len(model.add_patches(patches)) == len(patches)
    return model


FLUX_CASES = {
    "one picture": (inputs(height=47, width=30), {}),
    "a batch, as CFG makes it": (inputs(height=30, width=40, batch=2), {}),
    "a last slice of one token": (inputs(height=2 * 13, width=2 * 5, text=SLICE + 1), {}),
    "a long prompt": (inputs(height=30, width=30, text=200), {}),
    "a reference": (inputs(height=30, width=30), {"ref_latents": [(16, 12)]}),
    "ControlNet residuals": (inputs(height=30, width=32), {"control": True}),
}


@pytest.mark.parametrize("window", [None, RADIUS], ids=["full", "window"])
@pytest.mark.parametrize("case", FLUX_CASES)
@pytest.mark.parametrize("name", ["a", "b"])
def test_slices_give_the_velocity_of_the_whole(name, case, window, flux_model, nodes, run):
    arguments, extra = FLUX_CASES[case]
    extra = dict(extra)
    if "ref_latents" in extra:
        extra["ref_latents"] = [torch.randn(1, 16, *size) for size in extra["ref_latents"]]
    model = flux_model(name)
    if "control" in extra:
        tokens, hidden = 15 * 16, model.model.diffusion_model.hidden_size
        add = torch.randn(1, tokens, hidden, generator=torch.Generator().manual_seed(6))
        extra["control"] = {"input": [add], "output": [-add]}
    if window is not None:
        model = nodes.CLEARAttention(model, window)
    same(
        run(nodes.CLEARLowMemory(model, SLICE), **arguments, **extra),
        run(model, **arguments, **extra),
    )


@pytest.mark.parametrize("name", sd3.MODELS)
@pytest.mark.parametrize("window", [None, RADIUS], ids=["full", "window"])
def test_slices_give_the_velocity_of_the_whole_on_sd3(name, window, sd3_model, nodes, run):
    model, arguments = sd3_model(name), sd3.inputs(height=33, width=30, batch=2)
    if window is not None:
        model = nodes.CLEARAttention(model, window)
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), run(model, **arguments))


@pytest.mark.parametrize("low_vram", [False, True], ids=["loaded", "streamed"])
def test_a_lora_has_the_same_effect(low_vram, flux_model, nodes, run):
    base, arguments = flux_model("a"), inputs(height=30, width=40)
    model = with_lora(base)
    low = nodes.CLEARLowMemory(model, SLICE)
    expected = run(model, **arguments)
    assert not torch.allclose(expected, run(base, **arguments), atol=1e-3)
    if low_vram:
        # Weights stay in main memory, and patches are computed at each use.
        low.load(torch.device("cpu"), lowvram_model_memory=1, full_load=False)
        options = low.model_options["transformer_options"]
        x, timestep = arguments["x"], arguments["timestep"]
        rest = {"y": arguments["y"], "guidance": arguments["guidance"]}
        with torch.inference_mode():
            denoised = low.model.apply_model(
                x, timestep, c_crossattn=arguments["context"], transformer_options=options, **rest
            )
        low.detach()
        actual = (x - denoised) / timestep.view(-1, 1, 1, 1)
    else:
        actual = run(low, **arguments)
    same(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_differs_by_its_rounding_only(dtype, flux_model, nodes, run):
    arguments = inputs(height=30, width=40)
    low, whole = (
        run(model, **arguments)
        for model in (nodes.CLEARLowMemory(flux_model("a", dtype), SLICE), flux_model("a", dtype))
    )
    exact = run(flux_model("a"), **arguments)
    error, rounding = (low - exact).norm(), (whole - exact).norm()
    # Old hosts compute these models in float32.
    assert error <= 1.1 * rounding + 2e-6 * exact.norm()


def test_small_pictures_stay_with_the_host(flux_model, nodes, run):
    model, arguments = flux_model("a"), inputs(height=47, width=30)
    assert torch.equal(run(nodes.CLEARLowMemory(model, 0), **arguments), run(model, **arguments))


def test_the_original_model_and_its_clones_stay_bit_equal(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=30, width=40)
    block = model.model.diffusion_model.single_blocks[0]
    before, attributes = run(model, **arguments), set(vars(block))
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    low = nodes.CLEARLowMemory(model, SLICE)
    clone = model.clone()
    run(low, **arguments)
    assert torch.equal(run(model, **arguments), before)
    assert torch.equal(run(clone, **arguments), before)
    assert set(vars(block)) == attributes
    assert all(torch.equal(weights[k], v) for k, v in model.model.state_dict().items())
    assert "transformer_options" not in model.model_options or not any(
        "memory" in str(key) for key in model.model_options["transformer_options"]
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["window first", "window last"])
def test_the_order_of_the_nodes_does_not_matter(order, flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=30, width=40)
    steps = [
        lambda m: nodes.CLEARAttention(m, RADIUS, dense_blocks="single 1"),
        lambda m: nodes.CLEARLowMemory(m, SLICE),
    ]
    expected = run(steps[0](model), **arguments)
    for step in order:
        model = steps[step](model)
    same(run(model, **arguments), expected)


def test_a_sampling_run_with_cfg_ends_at_the_same_latent(flux_model, nodes, sample):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    expected, actual = sample(model), sample(nodes.CLEARLowMemory(model, SLICE))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_an_attention_mask_has_the_same_effect(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=20, width=24, text=40)
    mask = torch.zeros(1, 160, 160)
    mask[:, 60:, 20:40] = -2.0
    expected = run(model, **arguments, attention_mask=mask)
    assert not torch.allclose(expected, run(model, **arguments), atol=1e-3)
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments, attention_mask=mask), expected)
