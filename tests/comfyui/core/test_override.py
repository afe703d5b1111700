"""The nodes in the real host: what they change, what they leave alone, how they chain."""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import OVERRIDE, RADIUS, dense_override, disc_bias, inputs, with_override

CASES = {
    "odd latent": (inputs(), {}),
    "one row": (inputs(height=2, width=31), {}),
    "one word": (inputs(text=1), {}),
    "long prompt": (inputs(text=300), {}),
    "batch of two": (inputs(batch=2), {}),
    "batch of three, wide": (inputs(height=9, width=40, batch=3), {}),
    "one reference": (inputs(), {"ref_latents": [(16, 12)]}),
    "two odd references": (inputs(), {"ref_latents": [(11, 7), (6, 13)]}),
}


@pytest.mark.parametrize("backend", ["auto", "tiled", "masked", "flex", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_window_equals_a_mask_written_by_hand(case, backend, flux_model, nodes, run):
    arguments, extra = CASES[case]
    if "ref_latents" in extra:
        extra = {"ref_latents": [torch.randn(1, 16, *size) for size in extra["ref_latents"]]}
    height, width = (-(-size // 2) for size in arguments["x"].shape[-2:])
    references = sum(
        -(-ref.shape[-2] // 2) * -(-ref.shape[-1] // 2) for ref in extra.get("ref_latents", ())
    )
    bias = disc_bias(arguments["context"].shape[1], height, width, references)
    model = flux_model("a")
    local = run(nodes.CLEARAttention(model, RADIUS, backend=backend), **arguments, **extra)
    by_hand = run(with_override(model, dense_override(bias)), **arguments, **extra)
    torch.testing.assert_close(local, by_hand, atol=2e-5, rtol=2e-5)
    assert not torch.allclose(local, run(model, **arguments, **extra), atol=1e-3)


def test_attention_mask_is_kept_inside_the_window(flux_model, nodes, run):
    arguments = inputs(height=12, width=14, text=40)
    tokens = 40 + 6 * 7
    mask = torch.zeros(1, tokens, tokens)
    mask[:, 40:60, :20] = -torch.inf
    mask[:, 60:, 20:40] = -2.0
    by_hand = with_override(flux_model("a"), dense_override(disc_bias(40, 6, 7)))
    local = nodes.CLEARAttention(flux_model("a"), RADIUS)
    expected = run(by_hand, **arguments, attention_mask=mask)
    torch.testing.assert_close(
        run(local, **arguments, attention_mask=mask), expected, atol=2e-5, rtol=2e-5
    )
    assert not torch.allclose(run(local, **arguments), expected, atol=1e-3)


@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARLoader", "CLEARHighRes"])
def test_the_original_model_stays_bit_equal(node, flux_model, nodes, clear_folder, run):
    model, arguments = flux_model("a"), inputs()
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    embedder = model.model.diffusion_model.pe_embedder
    before = run(model, **arguments)
    given = {"CLEARAttention": (RADIUS,), "CLEARLoader": ("clear_a_local.safetensors", 1.0, 4)}
    patched = getattr(nodes, node)(model, *given.get(node, ()))
    between = run(model, **arguments)
    changed = run(patched, **arguments)
    after = run(model, **arguments)
    assert torch.equal(before, between)
    assert torch.equal(before, after)
    assert not torch.equal(before, changed)
    assert model.model.diffusion_model.pe_embedder is embedder
    assert all(torch.equal(weights[k], v) for k, v in model.model.state_dict().items())


def test_a_window_over_the_whole_grid_equals_full_attention(flux_model, nodes, run):
    model, arguments = flux_model("a"), inputs()
    full = run(model, **arguments)
    torch.testing.assert_close(
        run(nodes.CLEARAttention(model, 64), **arguments), full, atol=2e-5, rtol=2e-5
    )


def test_two_nodes_behave_as_the_last_one_alone(flux_model, nodes, clear_folder, run):
    model, arguments = flux_model("a"), inputs()
    loaded = nodes.CLEARLoader(model, "clear_a_down4.safetensors", 1.0, 4)
    twice = nodes.CLEARAttention(nodes.CLEARAttention(model, 7, pool_factor=2), RADIUS)
    assert torch.equal(
        run(twice, **arguments), run(nodes.CLEARAttention(model, RADIUS), **arguments)
    )
    first = nodes.CLEARLoader(model, "clear_a_local.safetensors", 0.5, 6)
    again = nodes.CLEARLoader(first, "clear_a_down4.safetensors", 1.0, 4)
    assert torch.equal(run(again, **arguments), run(loaded, **arguments))


def test_high_resolution_commutes_with_the_loader(flux_model, nodes, clear_folder, run):
    model, arguments = flux_model("a"), inputs()
    file = ("clear_a_local.safetensors", 1.0, 4)
    one = nodes.CLEARHighRes(nodes.CLEARLoader(model, *file), 10.0, True)
    other = nodes.CLEARLoader(nodes.CLEARHighRes(model, 10.0, True), *file)
    assert torch.equal(run(one, **arguments), run(other, **arguments))


def test_neutral_high_resolution_changes_nothing(flux_model, nodes, run):
    model, arguments = flux_model("a"), inputs()
    neutral = nodes.CLEARHighRes(model, 1.0, False)
    assert torch.equal(run(neutral, **arguments), run(model, **arguments))


def test_strength_zero_switches_the_loader_off(flux_model, nodes, clear_folder, run):
    model, arguments = flux_model("a"), inputs()
    off = nodes.CLEARLoader(model, "clear_a_local.safetensors", 0.0, 4)
    assert torch.equal(run(off, **arguments), run(model, **arguments))


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_override_gets_what_is_declined(order, flux_model, nodes, run):
    seen = []

    def other(func, *args, **kwargs):
        seen.append(args[0].shape)
        return func(*args, **kwargs)

    def dense_doubles(model):
        return nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0-1")

    model = flux_model("b")
    if order == "before":
        model = dense_doubles(with_override(model, other))
    else:
        model = with_override(dense_doubles(model), other)
    expected = run(dense_doubles(flux_model("b")), **inputs())
    assert torch.equal(run(model, **inputs()), expected)
    assert len(seen) == len(model.model.diffusion_model.double_blocks)


def test_another_block_patch_stays_in_place(flux_model, nodes, run):
    seen = []

    def replace(args, extra):
        seen.append(sorted(args))
        return extra["original_block"](args)

    model = flux_model("b").clone()
    model.set_model_patch_replace(replace, "dit", "double_block", 1)
    local = nodes.CLEARAttention(model, RADIUS, dense_blocks="single 0")
    expected = run(
        nodes.CLEARAttention(flux_model("b"), RADIUS, dense_blocks="single 0"), **inputs()
    )
    assert torch.equal(run(local, **inputs()), expected)
    assert len(seen) == 1


def test_percentages_bound_the_window_in_time(flux_model, nodes, run):
    model = flux_model("b")
    early = nodes.CLEARAttention(model, RADIUS, end_percent=0.5)
    always = nodes.CLEARAttention(model, RADIUS)
    sampling = model.get_model_object("model_sampling")
    for percent, expected in ((0.2, always), (0.8, model)):
        arguments = inputs() | {"timestep": torch.tensor([sampling.percent_to_sigma(percent)])}
        assert torch.equal(run(early, **arguments), run(expected, **arguments))


def test_all_blocks_dense_is_the_model_itself(flux_model, nodes, run):
    model = flux_model("b")
    dense = nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0-1, single.0-1, single 2")
    assert torch.equal(run(dense, **inputs()), run(model, **inputs()))


def test_small_pictures_stay_dense_below_min_tokens(flux_model, nodes, run):
    model = flux_model("a")
    small, large = inputs(height=16, width=16), inputs(height=18, width=18)
    node = nodes.CLEARAttention(model, RADIUS, min_tokens=81)
    assert torch.equal(run(node, **small), run(model, **small))
    assert torch.equal(run(node, **large), run(nodes.CLEARAttention(model, RADIUS), **large))


def test_pooling_weights_reach_their_own_layer(flux_model, nodes, clear_folder, run, pack):
    model = nodes.CLEARLoader(flux_model("b"), "clear_b_down4.safetensors", 1.0, 4)
    options = model.model_options["transformer_options"]
    settings = options["clear_attention"]
    kinds = {block: pooling.weight for block, pooling in settings.local.pool_weights.items()}
    assert set(kinds) == {("double", 0), ("double", 1), *(("single", i) for i in range(3))}
    assert len({tuple(weight.flatten().tolist()) for weight in kinds.values()}) == len(kinds)


def test_nothing_of_a_call_stays_in_the_options(flux_model, nodes, run):
    model = nodes.CLEARAttention(flux_model("a"), RADIUS, dense_blocks="single 0")
    options = model.model_options["transformer_options"]
    before = set(options)
    run(model, **inputs())
    assert set(options) == before
    assert OVERRIDE not in options


def test_a_clone_of_a_patched_model_is_patched_alike(flux_model, nodes, clear_folder, run):
    model = nodes.CLEARLoader(flux_model("b"), "clear_b_down4.safetensors", 1.0, 4)
    with torch.inference_mode():
        clone = model.clone().clone()
    assert torch.equal(run(clone, **inputs()), run(model, **inputs()))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0-3", "must look like"),
        ("double x", "must look like"),
        ("single 5-2", "backwards"),
        ("double 0, single 1-3", "which has double 0-0, single 0-0, got single 1"),
    ],
)
def test_unreadable_dense_blocks_are_explained(text, complaint, flux_model, nodes):
    with pytest.raises(ValueError, match=complaint):
        nodes.CLEARAttention(flux_model("a"), RADIUS, dense_blocks=text)


def test_an_empty_share_of_the_schedule_is_refused(flux_model, nodes):
    with pytest.raises(ValueError, match=r"smaller than end_percent, got 0\.6 and 0\.4"):
        nodes.CLEARAttention(flux_model("a"), RADIUS, start_percent=0.6, end_percent=0.4)


def test_other_architectures_are_refused_in_one_sentence(flux_model, nodes):
    model = flux_model("a").clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(
        ValueError,
        match=r"families FLUX\.2, FLUX, .*, Wan, got Linear\. Remove .*docs/models\.md",
    ):
        nodes.CLEARAttention(model, RADIUS)


def module_class(name, module):
    return type(name, (torch.nn.Module,), {"__module__": module})


@pytest.mark.parametrize("folder", ["custom_nodes.ComfyUI-nunchaku.wrappers.flux", "renamed.flux"])
def test_nunchaku_models_are_refused_with_the_reason(folder, flux_model, nodes, clear_folder):
    """Theirs is a wrapper in the folder of their nodes, around a module of their package."""
    wrapper = module_class("ComfyFluxWrapper", folder)()
    package = "nunchaku.models.transformers.transformer_flux"
    wrapper.model = module_class("NunchakuFluxTransformer2dModel", package)()
    model = flux_model("a").clone()
    model.add_object_patch("diffusion_model", wrapper)
    for node, given in (
        (nodes.CLEARAttention, (RADIUS,)),
        (nodes.CLEARLoader, ("clear_a_local.safetensors", 1.0, 4)),
        (nodes.CLEARLowMemory, (0,)),
        (nodes.CLEARParallel, ("cpu,cpu",)),
        (nodes.CLEARHighRes, ()),
    ):
        with pytest.raises(ValueError, match="cannot be combined with nunchaku models: their"):
            node(model, *given)


def test_a_host_that_is_too_old_is_named(flux_model, nodes, product, monkeypatch):

    host_module = product("comfyui.core.host")
    monkeypatch.setattr(host_module, "HOST_VERSION", "0.3.49")
    with pytest.raises(RuntimeError, match=r"needs ComfyUI 0\.3\.60 or newer .* this is 0\.3\.49"):
        nodes.CLEARAttention(flux_model("a"), RADIUS)


def test_tokens_in_front_of_the_prompt_count_as_text(flux_model, nodes, run):
    """As Redux and other image prompts add them."""

    def prepend(given):
        image_prompt = torch.ones_like(given["txt"][:, :7])
        ids = torch.zeros_like(given["txt_ids"][:, :7])
        return given | {
            "txt": torch.cat((image_prompt, given["txt"]), 1),
            "txt_ids": torch.cat((ids, given["txt_ids"]), 1),
        }

    model = flux_model("a").clone()
    model.set_model_patch(prepend, "post_input")
    by_hand = with_override(model, dense_override(disc_bias(47, 12, 9)))
    local = nodes.CLEARAttention(model, RADIUS)
    torch.testing.assert_close(
        run(local, **inputs()), run(by_hand, **inputs()), atol=2e-5, rtol=2e-5
    )


def test_weights_that_are_streamed_give_the_same_picture(flux_model, nodes, clear_folder, run):
    arguments = inputs()
    local = nodes.CLEARLoader(flux_model("a"), "clear_a_local.safetensors", 1.0, 4)
    expected = run(local, **arguments)
    streamed = nodes.CLEARLoader(flux_model("a"), "clear_a_local.safetensors", 1.0, 4)
    streamed.load(torch.device("cpu"), lowvram_model_memory=1)
    options = streamed.model_options["transformer_options"]
    try:
        with torch.inference_mode():
            denoised = streamed.model.apply_model(
                arguments["x"],
                arguments["timestep"],
                c_crossattn=arguments["context"],
                transformer_options=options,
                y=arguments["y"],
                guidance=arguments["guidance"],
            )
    finally:
        streamed.unpatch_model()
    velocity = (arguments["x"] - denoised) / arguments["timestep"].view(-1, 1, 1, 1)
    torch.testing.assert_close(velocity, expected, atol=1e-5, rtol=1e-5)
