"""CLEAR weights with other loaders and weight nodes: scaled fp8, GGUF, merging, saving, hooks."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from ..flux_runs import conditioning, inputs, sampled
from .packed import pack

FILE = ("clear_a_local.safetensors", 1.0, 4)
CPU = torch.device("cpu")
SIZE = (12, 10)
ROUNDING = {"atol": 2e-5, "rtol": 2e-5}


def weights_in_use(model):
    """Return copies of the weights as the model runs with them."""
    with torch.inference_mode():
        model.patch_model(device_to=CPU)
        state = {name: tensor.clone() for name, tensor in model.model_state_dict().items()}
        model.unpatch_model(CPU)
    return state


def lora():
    generator = torch.Generator().manual_seed(8)
    layer = "transformer.single_transformer_blocks.0.attn.to_q"
    down, up = torch.randn(4, 256, generator=generator), torch.randn(256, 4, generator=generator)
    return {f"{layer}.lora_A.weight": 0.1 * down, f"{layer}.lora_B.weight": 0.1 * up}


def with_lora(model):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, lora(), 1.0, 0.0)[0]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_packed_weights_take_clear_and_loras_in_any_order(
    strength, streamed, flux_model, nodes, clear_folder, run
):
    """As those of GGUF files, which their loader's class unpacks and patches at each call."""
    plain = flux_model("a")
    packed = pack(flux_model("a"), plain)
    file = ("clear_a_local.safetensors", strength, 4)
    expected = run(with_lora(nodes.CLEARLoader(plain, *file)), **inputs())
    base = run(packed, **inputs())
    assert not torch.allclose(base, expected, atol=1e-2)
    for model in (
        with_lora(nodes.CLEARLoader(packed, *file)),
        nodes.CLEARLoader(with_lora(packed), *file),
        nodes.CLEARLowMemory(with_lora(nodes.CLEARLoader(packed, *file)), 20),
    ):
        assert type(model) is type(packed)
        if streamed:
            model.patch_model = functools.partial(model.patch_model, CPU, lowvram_model_memory=1)
        torch.testing.assert_close(run(model, **inputs()), expected, **ROUNDING)
    assert torch.equal(run(packed, **inputs()), base)


def scaled_fp8(flux_model, weights):
    """Return a model with scaled fp8 weights as the host loads it, old or new."""
    import comfy.ops
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    config = flux_model("a").model.model_config
    old = hasattr(comfy.ops, "scaled_fp8_ops")
    state = {}
    for key, value in config.process_unet_state_dict(weights).items():
        if not key.endswith(".weight") or "_blocks." not in key or value.ndim != 2:
            state[key] = value
            continue
        scale = value.abs().max() / 448
        state[key] = (value / scale).to(torch.float8_e4m3fn)
        if old:
            state[key.removesuffix("weight") + "scale_weight"] = scale
        else:
            note = json.dumps({"format": "float8_e4m3fn"}).encode()
            state[f"{key}_scale"] = scale
            state[key.removesuffix("weight") + "comfy_quant"] = torch.tensor(
                list(note), dtype=torch.uint8
            )
    if old:
        config.custom_operations = comfy.ops.scaled_fp8_ops(override_dtype=torch.float32)
    else:
        config.custom_operations = comfy.ops.mixed_precision_ops({}, torch.float32)
    config.optimizations["fp8"] = False
    model = config.get_model({})
    missing = model.diffusion_model.load_state_dict(state, strict=False).missing_keys
    assert all(name.endswith("scale_weight") for name in missing)  # of layers that have none
    return ModelPatcher(model, load_device=CPU, offload_device=CPU)


@pytest.mark.parametrize("strength", [1.0, 0.4])
@torch.inference_mode()  # as the host runs its nodes
def test_scaled_fp8_weights_take_clear_as_well_as_they_hold_the_base(
    strength, flux_model, flux_weights, nodes, clear_folder, run
):
    file = ("clear_a_local.safetensors", strength, 4)
    exact, scaled = flux_model("a"), scaled_fp8(flux_model, flux_weights("a"))
    window = ("clear_a_local.safetensors", 1e-9, 4)  # the window, without the weights

    def error(*file):
        expected = run(nodes.CLEARLoader(exact, *file), **inputs())
        return (run(nodes.CLEARLoader(scaled, *file), **inputs()) - expected).norm()

    base, clear = error(*window), error(*file)
    change = run(nodes.CLEARLoader(exact, *file), **inputs()) - run(
        nodes.CLEARLoader(exact, *window), **inputs()
    )
    assert clear <= 1.5 * base < change.norm()
    before = run(scaled, **inputs())
    run(nodes.CLEARLoader(scaled, *file), **inputs())
    assert torch.equal(run(scaled, **inputs()), before)


def other_model(flux_model):
    other = flux_model("a")
    for tensor in other.model.parameters():
        tensor.data.mul_(-0.5)
    return other


@pytest.mark.parametrize("side", [1, 2])
def test_merge_nodes_mix_the_distilled_weights(side, flux_model, nodes, clear_folder):
    """Of either model; the window is the first one's, as all that is no weight."""
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    clear, other = nodes.CLEARLoader(flux_model("a"), *FILE), other_model(flux_model)
    pair = (clear, other) if side == 1 else (other, clear)
    (merged,) = ModelMergeSimple().merge(*pair, 0.25)
    first, second = (weights_in_use(model) for model in pair)
    for name, weight in weights_in_use(merged).items():
        if name.startswith("diffusion_model."):
            expected = 0.25 * first[name].double() + 0.75 * second[name].double()
            torch.testing.assert_close(weight.double(), expected, atol=1e-6, rtol=1e-6)
    settings = merged.model_options["transformer_options"]
    assert ("clear_attention" in settings) == (side == 1)


def test_blocks_are_merged_one_by_one(flux_model, nodes, clear_folder):
    from comfy_extras.nodes_model_merging_model_specific import ModelMergeFlux1

    clear, other = nodes.CLEARLoader(flux_model("a"), *FILE), other_model(flux_model)
    ratios = {"img_in.": 1.0, "double_blocks.0.": 0.0, "single_blocks.0.": 0.75}
    (merged,) = ModelMergeFlux1().merge(clear, other, **ratios)
    ours, theirs, mixed = (weights_in_use(model) for model in (clear, other, merged))
    for layer in ("img_attn.qkv.weight", "img_attn.proj.bias"):
        key = f"diffusion_model.double_blocks.0.{layer}"
        assert torch.equal(mixed[key], theirs[key])
    key = "diffusion_model.single_blocks.0.linear1.weight"
    expected = 0.75 * ours[key].double() + 0.25 * theirs[key].double()
    torch.testing.assert_close(mixed[key].double(), expected, atol=1e-6, rtol=1e-6)


def test_a_saved_model_has_the_distilled_weights(
    flux_model, nodes, clear_folder, run, tmp_path, monkeypatch
):
    """Its window is not in the file: CLEAR Attention (no weights) puts it on again."""
    import folder_paths
    from comfy_extras.nodes_model_merging import ModelSave

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    model = nodes.CLEARLoader(flux_model("a"), *FILE)
    in_use, expected = weights_in_use(model), run(model, **inputs())
    ModelSave().save(model, "saved")
    (path,) = tmp_path.glob("*.safetensors")
    saved = load_file(path)
    prefix = "diffusion_model."
    assert all(
        torch.equal(tensor, in_use[prefix + name.removeprefix("model.").removeprefix(prefix)])
        for name, tensor in saved.items()
    )
    again = flux_model("a")
    names = {name.removeprefix("model.").removeprefix(prefix): t for name, t in saved.items()}
    again.model.diffusion_model.load_state_dict(names)
    assert torch.equal(run(nodes.CLEARAttention(again, 4), **inputs()), expected)


def test_a_lora_on_one_prompt_by_hooks_lies_on_top(flux_model, nodes, clear_folder):
    """Prompts with a LoRA of their own: as two runs, one with the LoRA on the model."""
    import comfy.hooks

    def window(model):
        return nodes.CLEARLoader(model, *FILE)

    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    positive = comfy.hooks.set_hooks_for_conditioning(conditioning(40, 2), hooks)
    hooked = sampled(window(flux_model("a")), SIZE, cfg=1.0, positive=positive)
    expected = sampled(with_lora(window(flux_model("a"))), SIZE, cfg=1.0)
    torch.testing.assert_close(hooked, expected, atol=1e-4, rtol=1e-4)
    without = sampled(window(flux_model("a")), SIZE, cfg=1.0)
    assert not torch.allclose(without, expected, atol=1e-3)
    model = window(flux_model("a"))
    sampled(model, SIZE, positive=positive)
    assert torch.equal(sampled(model, SIZE, cfg=1.0), without)
