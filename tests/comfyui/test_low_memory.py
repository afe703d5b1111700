"""CLEAR Low Memory in the real host: blocks in slices, the host's estimate, warnings."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from . import test_sd3 as sd3
from .test_attention_override import inputs
from .test_sampling import conditioning, sample  # noqa: F401 - fixture

RADIUS = 4
SLICE = 64
GIB = 1 << 30
FREE = {"get_free_memory": 22 * GIB, "get_total_memory": 24 * GIB}


@pytest.fixture
def lengths(monkeypatch):
    """How many tokens each call of a widening layer had: those of q, k, v and of the MLPs."""
    seen: list[int] = []
    linear = torch.nn.functional.linear

    def counted(x, weight, bias=None):
        if x.ndim == 3 and weight.shape[0] >= 3 * weight.shape[1]:
            seen.append(x.shape[1])
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    return seen


def same(actual, expected):
    """Assert that two velocities differ by the rounding of float32 at most."""
    assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()


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


def test_no_wide_layer_sees_more_than_a_slice(flux_model, nodes, run, lengths):
    arguments = inputs(height=47, width=30, text=40)
    run(nodes.CLEARLowMemory(flux_model("b"), SLICE), **arguments)
    assert max(lengths) == SLICE
    lengths.clear()
    run(flux_model("b"), **arguments)
    assert max(lengths) == 24 * 15 + 40


def test_no_wide_layer_sees_more_than_a_slice_on_sd3(sd3_model, nodes, run, lengths):
    arguments = sd3.inputs(height=33, width=30)
    run(nodes.CLEARLowMemory(sd3_model("3.5-medium"), SLICE), **arguments)
    assert max(lengths) == SLICE


def test_layers_with_a_forward_of_their_own_are_called_whole(flux_model, nodes, run):
    import comfy.ops

    class Packed(comfy.ops.disable_weight_init.Linear):
        """Stands for GGUF and scaled fp8: its weight is not what it multiplies by."""

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight * 2, self.bias)

    model, arguments = flux_model("a"), inputs(height=30, width=40)
    for block in model.model.diffusion_model.single_blocks:
        block.linear1.__class__ = Packed
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), run(model, **arguments))


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


def test_a_sampling_run_with_cfg_ends_at_the_same_latent(flux_model, nodes, sample):  # noqa: F811
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    expected, actual = sample(model), sample(nodes.CLEARLowMemory(model, SLICE))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_of_two_nodes_the_last_one_wins(flux_model, nodes, run, lengths):
    model = nodes.CLEARLowMemory(nodes.CLEARLowMemory(flux_model("b"), SLICE), 100)
    run(model, **inputs(height=47, width=30))
    assert max(lengths) == 100


@pytest.mark.parametrize("after", [False, True], ids=["before ours", "after ours"])
def test_another_node_may_replace_a_block_around_ours(after, flux_model, nodes, run, lengths):
    def halved(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"] * 0.5}

    def replaced(model):
        model = model.clone()
        model.set_model_patch_replace(halved, "dit", "single_block", 1)
        return model

    arguments = inputs(height=30, width=40)
    model = flux_model("b")
    expected = run(replaced(model), **arguments)
    assert not torch.allclose(expected, run(model, **arguments), atol=1e-3)
    low = nodes.CLEARLowMemory(model if after else replaced(model), SLICE)
    lengths.clear()
    same(run(replaced(low) if after else low, **arguments), expected)
    assert max(lengths) == SLICE


def test_blocks_that_another_node_changed_are_left_to_it(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=30, width=40)
    block = model.model.diffusion_model.single_blocks[1]
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5
    expected = run(model, **arguments)
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), expected)


def test_an_attention_mask_has_the_same_effect(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=20, width=24, text=40)
    mask = torch.zeros(1, 160, 160)
    mask[:, 60:, 20:40] = -2.0
    expected = run(model, **arguments, attention_mask=mask)
    assert not torch.allclose(expected, run(model, **arguments), atol=1e-3)
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments, attention_mask=mask), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["double", "single"])
def test_what_overflows_in_half_precision_stays_finite(kind, flux_model, pack):
    flux = sys.modules[f"{pack.__name__}.clear_attention.comfyui.memory_flux"]
    model = flux_model("b", torch.float16).model.diffusion_model
    block = (model.double_blocks if kind == "double" else model.single_blocks)[0]
    last = block.txt_mlp[2] if kind == "double" else block.linear2
    last.weight.data = last.weight.data.clamp(-1, 1) * 60_000
    generator = torch.Generator().manual_seed(7)
    x, txt, vec = (
        torch.randn(*shape, generator=generator).half() * 30
        for shape in ((1, 20, 128), (1, 9, 128), (1, 128))
    )
    args = {"img": x, "txt": txt, "vec": vec, "pe": None, "transformer_options": {}}
    if kind == "single":
        del args["txt"]
    out = getattr(flux, kind)(block, args, 8)
    changed = out["txt" if kind == "double" else "img"]
    assert changed.isfinite().all()
    assert changed.abs().max() == 65504


def test_every_model_call_gets_the_same_functions(flux_model, nodes, run):
    """Or torch.compile would compile again in every step."""
    from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

    seen = []

    def record(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[-1]
        seen.append(options["patches_replace"]["dit"])
        return executor(*args, **kwargs)

    model = nodes.CLEARLowMemory(nodes.CLEARLowMemory(flux_model("b"), SLICE), SLICE)
    options = model.model_options
    add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record, options, is_model_options=True)
    for seed in (0, 1):
        run(model, **inputs(height=30, width=40, seed=seed))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


def test_blocks_that_another_node_works_inside_are_left_to_the_host(
    flux_model, nodes, run, lengths
):
    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    model.set_model_patch(lambda *args, **kwargs: {}, "attn1_patch")
    run(model, **inputs(height=30, width=40))
    assert max(lengths) == 300 + 40


def test_blocks_stay_whole_while_their_outputs_are_recorded(flux_model, nodes, run, lengths):
    shapes = []

    class Recorder:
        def add(self, block, output):
            shapes.append(tuple(output.shape))

    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    model.model_options["transformer_options"]["clear_attention_recorder"] = Recorder()
    run(model, **inputs(height=30, width=40))
    assert max(lengths) == 300 + 40
    assert shapes == [(1, 340, 128)] * 5


def test_blocks_stay_whole_while_gradients_are_computed(flux_model, nodes, lengths):
    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    arguments = inputs(height=30, width=40)
    options = model.model_options["transformer_options"]
    with torch.enable_grad():
        model.model.apply_model(
            arguments["x"],
            arguments["timestep"],
            c_crossattn=arguments["context"],
            y=arguments["y"],
            transformer_options=options,
        )
    assert max(lengths) == 300 + 40


@torch.inference_mode()
def test_a_result_that_the_host_has_read_holds_no_memory(flux_model, pack):
    memory = sys.modules[f"{pack.__name__}.clear_attention.comfyui.memory"]
    model = flux_model("b").model.diffusion_model
    options = {memory.CALL_KEY: memory.MemoryCall(memory.LowMemory(4), model, None)}
    args = {"vec": torch.zeros(1, 128), "pe": None, "transformer_options": options}
    args |= {"img": torch.zeros(1, 16, 128), "txt": torch.zeros(1, 3, 128)}
    first = memory._replace("double", 0)(args, {})
    assert set(first) == {"img", "txt"}
    second = memory._replace("double", 1)({**args, **first}, {})
    assert first == {}
    assert set(second) == {"img", "txt"}


def test_hooks_on_a_layer_see_each_token_once(flux_model, nodes, run):
    model, seen = flux_model("b"), []
    layer = model.model.diffusion_model.double_blocks[0].img_attn.qkv
    layer.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    run(nodes.CLEARLowMemory(model, SLICE), **inputs(height=30, width=40))
    assert sum(seen) == 300
    assert max(seen) == SLICE


def test_references_with_a_timestep_of_their_own_are_left_to_the_host(flux_model, pack):
    flux = sys.modules[f"{pack.__name__}.clear_attention.comfyui.memory_flux"]
    block = flux_model("b").model.diffusion_model.single_blocks[0]
    x = torch.zeros(1, 8, 128)
    args = {"img": x, "vec": torch.zeros(1, 128), "pe": None, "transformer_options": {}}
    assert flux.why_not(block, args) is None
    twice = block.modulation(torch.zeros(1, 2, 128))[0]
    for vec in (torch.zeros(2, 128), torch.zeros(1, 2, 128), twice):
        assert "timestep of their own" in flux.why_not(block, {**args, "vec": vec})


# ---- the estimate


def estimate(pack, model, shape, slice_tokens=0):
    name = f"{pack.__name__}.clear_attention.comfyui"
    settings = sys.modules[f"{name}.patch"].settings_of(model)
    return sys.modules[f"{name}.memory_estimate"].corrected_shape(
        model, shape, settings, slice_tokens
    )


@pytest.fixture
def wide(flux_model, monkeypatch):
    """A model that says it is as wide as FLUX.1 in bfloat16; it is only asked, not run."""
    import comfy.model_management

    # The host's own estimate on a card, where attention needs no memory that is quadratic.
    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    model = flux_model("a", torch.bfloat16)
    model.model.diffusion_model.hidden_size = 3072
    model.model.diffusion_model.num_heads = 24
    model.model.manual_cast_dtype = torch.bfloat16
    return model


@pytest.mark.parametrize(
    ("edge_px", "least", "most", "theirs"), [(8192, 10, 14, 63.5), (4096, 2.5, 4, 15.9)]
)
def test_the_estimate_is_what_slices_need(edge_px, least, most, theirs, wide, nodes, pack):
    shape = [1, 16, edge_px // 8, edge_px // 8]
    found = estimate(pack, nodes.CLEARAttention(wide, 16, backend="tiled"), shape)
    assert found.host / GIB == pytest.approx(theirs, rel=0.01)
    assert least <= found.needed / GIB <= most
    # What the host makes of the shape that it is given.
    assert wide.model.memory_required(found.shape) == pytest.approx(found.needed, rel=1e-3)
    assert found.shape[:2] == shape[:2]


def test_the_estimate_is_linear_in_pixels_and_batch(wide, nodes, pack):
    model = nodes.CLEARAttention(wide, 16, backend="tiled")
    needed = {
        (batch, edge): estimate(pack, model, [batch, 16, edge, edge]).needed - GIB // 2
        for batch, edge in ((1, 512), (1, 1024), (2, 1024))
    }
    assert needed[2, 1024] == pytest.approx(2 * needed[1, 1024], rel=1e-6)
    assert needed[1, 1024] == pytest.approx(4 * needed[1, 512], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (None, "no CLEAR window"),
        ({"start_percent": 0.2}, "part of the schedule"),
        ({"dense_blocks": "double 0"}, "blocks are kept dense"),
        ({"pool_factor": 4}, "pooled"),
        ({"min_tokens": 1 << 20}, "min_tokens"),
        ({"backend": "reference"}, "reference is not linear"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_the_hosts_estimate_stays_where_attention_is_not_linear(changes, why, wide, nodes, pack):
    if changes is not None:
        wide = nodes.CLEARAttention(wide, 16, **{"backend": "tiled", **changes})
    found = estimate(pack, wide, [1, 16, 1024, 1024])
    assert why in found.why_not
    assert found.shape == [1, 16, 1024, 1024]


@pytest.fixture
def asked(monkeypatch):
    """What the host asks of its memory management: bytes."""
    import comfy.model_management

    seen: list[dict[str, float]] = []
    load = comfy.model_management.load_models_gpu

    def recorded(models, **kwargs):
        seen.append(kwargs)
        return load(models, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", recorded)
    return seen


def test_the_host_is_told_the_estimate(flux_model, nodes, pack, sample, asked, caplog):  # noqa: F811
    caplog.set_level(logging.INFO)
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled")
    sample(model)
    sample(nodes.CLEARLowMemory(model, SLICE))
    host, ours = (call["minimum_memory_required"] for call in asked)
    found = estimate(pack, model, [1, 16, 26, 20], SLICE)
    # The host's own is smaller for so narrow a model at so small a size: it stays.
    assert found.why_not == "it is the smaller one" and host == ours
    asked.clear()
    name = f"{pack.__name__}.clear_attention.comfyui.memory_estimate"
    sys.modules[name].FIXED = 0
    try:
        sample(nodes.CLEARLowMemory(model, SLICE))
        found = estimate(pack, model, [1, 16, 26, 20], SLICE)
    finally:
        sys.modules[name].FIXED = GIB // 2
    assert found.why_not == ""
    assert found.needed <= asked[0]["minimum_memory_required"] < min(host, 1.5 * found.needed)


# ---- reports and warnings


def lines(caplog, level):
    return [
        r.getMessage()[7:]
        for r in caplog.records
        if r.levelno == level and r.name.endswith("report")
    ]


def test_the_report_says_how_blocks_were_computed(flux_model, nodes, sample, caplog):  # noqa: F811
    caplog.set_level(logging.INFO)
    sample(nodes.CLEARLowMemory(flux_model("b"), 100))
    found = lines(caplog, logging.INFO)
    assert "memory: double blocks in slices of 100 tokens" in found
    assert "memory: single blocks in slices of 100 tokens" in found
    assert len(found) == len(set(found)) == 3
    assert any("no CLEAR window" in line for line in found)
    caplog.clear()
    sample(nodes.CLEARLowMemory(flux_model("b"), 0))
    assert "memory: double blocks whole: 130 tokens are one slice" in lines(caplog, logging.INFO)


@pytest.fixture
def card(monkeypatch):
    """A machine with 24 GiB of which 22 are free, and latents of another size than they are."""
    from comfy import model_management

    for name, value in FREE.items():
        monkeypatch.setattr(model_management, name, lambda *args, value=value, **kwargs: value)


@pytest.mark.parametrize(
    ("edge_px", "taesd", "expected"),
    [
        (1024, True, []),
        (4096, True, ["VAE Decode"]),
        (8192, True, ["TAESD", "VAE Decode"]),
        (8192, False, ["VAE Decode"]),
    ],
)
def test_what_runs_out_of_memory_is_said(
    edge_px, taesd, expected, flux_model, pack, card, monkeypatch
):
    import folder_paths
    from comfy.cli_args import LatentPreviewMethod, args

    method = LatentPreviewMethod.TAESD if taesd else LatentPreviewMethod.Latent2RGB
    monkeypatch.setattr(args, "preview_method", method)
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["taef1_decoder.pth"])
    module = sys.modules[f"{pack.__name__}.clear_attention.comfyui.memory_warnings"]
    found = module.warnings(flux_model("a"), [1, 16, edge_px // 8, edge_px // 8])
    assert len(found) == len(expected)
    for line, word in zip(found, expected, strict=True):
        assert word in line
        assert f"{edge_px} x {edge_px} pixels" in line


def test_a_warning_is_in_the_log_once(flux_model, nodes, sample, monkeypatch, caplog):  # noqa: F811
    from comfy import model_management

    monkeypatch.setattr(model_management, "get_total_memory", lambda *args, **kwargs: 1000)
    caplog.set_level(logging.INFO)
    sample(nodes.CLEARLowMemory(flux_model("b"), SLICE))
    assert sum("VAE Decode" in r.getMessage() for r in caplog.records) == 1
    assert len([line for line in lines(caplog, logging.WARNING) if "VAE Decode" in line]) == 1
