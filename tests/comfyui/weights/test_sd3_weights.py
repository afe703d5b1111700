"""A CLEAR checkpoint on an SD3 model of the real host: which weights come out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from clear_attention.families.sd3 import NAMES as SD3
from clear_attention.weights import CheckpointError, checkpoint

from ..sd3_fixtures import SD3_MODELS, size_of
from .test_patches import (
    assert_close,
    assert_same_bits,
    patched_weights,
    plain_weights,
    snapshot,
)

FILES = [("3-medium", True), ("3.5-large", True), ("3.5-medium", True), ("3.5-medium", False)]
MEDIUM = "3.5-medium"
STRENGTHS = (0.0, 0.5, 1.0, 1.5)


@pytest.fixture
def clear(sd3_folders, sd3_clear, weights):
    """Write and load a CLEAR file of a model, with its tensors."""

    def load(name, pool_factor=0, image=True):
        return weights.load_clear(sd3_clear(name, pool_factor, image).name)

    return load


def fused(base, clear):
    """Write a file's tensors over the base weights, as the host's own table of names says."""
    import comfy.utils

    width = clear.checkpoint.size.hidden
    names = comfy.utils.mmdit_to_diffusers({"depth": width // 64}, "diffusion_model.")
    state = {name: tensor.double().clone() for name, tensor in base.items()}
    for name, tensor in clear.tensors.by_name.items():
        if "spatial_weight" not in name:
            place = names[name]
            key, (_, start, rows) = (place, (0, 0, width)) if isinstance(place, str) else place
            state[key][start : start + rows] = tensor.double()
    return state


@pytest.mark.parametrize("name", SD3_MODELS)
def test_the_names_are_those_of_the_host(name, host):
    import comfy.utils

    size = size_of(name)
    theirs = comfy.utils.mmdit_to_diffusers({"depth": size.blocks["joint"]})
    for ours, (key, rows) in SD3.slices(size).items():
        assert theirs[ours] in ((key, rows), key)
        assert isinstance(theirs[ours], tuple) or rows == (0, 0, size.hidden)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("name", "image"), FILES)
def test_weights_are_interpolated_between_base_and_file(
    name, image, strength, sd3_model, clear, weights
):
    model, file = sd3_model(name), clear(name, image=image)
    base = plain_weights(model)
    target = fused(base, file)
    expected = {k: base[k].double() + strength * (target[k] - base[k].double()) for k in base}
    actual = patched_weights(weights.apply_clear(model, file, strength))
    assert_close(actual, expected)
    if strength in (0.0, 1.0):
        assert all(torch.equal(actual[key].double(), expected[key]) for key in base)
    changed = {key for key in base if not torch.equal(actual[key], base[key])}
    assert changed == ({rows.key for rows in file.patches} if strength else set())
    assert image or not any("attn2" in key for key in changed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_get_the_files_values(dtype, sd3_model, clear, weights):
    model, file = sd3_model(MEDIUM, dtype), clear(MEDIUM)
    base = plain_weights(model)
    actual = patched_weights(weights.apply_clear(model, file, 1.0))
    target = fused(base, file)
    # bf16 values below fp16's normal range lose bits there, nowhere else
    tiny = 2**-25 if dtype == torch.float16 else 0
    assert all(actual[key].dtype == base[key].dtype for key in base)
    assert all((actual[key].double() - target[key]).abs().max() <= tiny for key in base)


def lora(model):
    """Return a function that puts a LoRA, in diffusers names, on the trained and other layers."""
    import comfy.sd

    generator = torch.Generator().manual_seed(0)
    hidden = model.model.diffusion_model.hidden_size
    file = {}
    for layer in ("attn.to_q", "attn.to_v", "attn.to_out.0", "attn2.to_k", "attn.add_q_proj"):
        name = f"transformer.transformer_blocks.0.{layer}"
        file[f"{name}.lora_A.weight"] = 0.05 * torch.randn(4, hidden, generator=generator)
        file[f"{name}.lora_B.weight"] = 0.05 * torch.randn(hidden, 4, generator=generator)
    return lambda model: comfy.sd.load_lora_for_models(model, None, file, 0.8, 0)[0]


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_lora_before_is_a_lora_after(strength, sd3_model, clear, weights):
    model, file = sd3_model(MEDIUM), clear(MEDIUM)
    with_lora = lora(model)
    base = plain_weights(model)
    before = patched_weights(weights.apply_clear(with_lora(model), file, strength))
    after = patched_weights(with_lora(weights.apply_clear(model, file, strength)))
    assert_same_bits(before, after)

    alone, target = patched_weights(with_lora(model)), fused(base, file)
    expected = {
        key: (1 - strength) * base[key].double()
        + strength * target[key]
        + (alone[key].double() - base[key].double())
        for key in base
    }
    changed = {key for key in base if not torch.equal(alone[key], base[key])}
    assert {key.split("x_block.")[-1] for key in changed} == {
        "attn.qkv.weight",
        "attn.proj.weight",
        "attn2.qkv.weight",
        "diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
    }
    assert_close(before, expected)


def test_of_two_files_the_last_wins(sd3_model, clear, weights):
    model = sd3_model(MEDIUM)
    once = weights.apply_clear(model, clear(MEDIUM), 0.5)
    both = weights.apply_clear(once, clear(MEDIUM, image=False))
    alone = weights.apply_clear(model, clear(MEDIUM, image=False))
    assert both.patches.keys() == alone.patches.keys()
    assert_same_bits(patched_weights(both), patched_weights(alone))


def test_a_model_with_its_weights_saved_and_cut_again_is_the_file(sd3_model, clear, weights, host):
    file = clear(MEDIUM)
    state = patched_weights(weights.apply_clear(sd3_model(MEDIUM), file))
    plain = {key.removeprefix("diffusion_model."): tensor for key, tensor in state.items()}
    cut = SD3.from_host(plain, file.checkpoint.size)
    assert cut.keys() == file.tensors.by_name.keys()
    assert all(torch.equal(cut[k].bfloat16(), file.tensors.by_name[k]) for k in cut)


@pytest.mark.parametrize(
    ("file", "model", "words"),
    [
        ("3.5-large", MEDIUM, ["width 128 with 2 joint blocks", "192 with 3 joint and 2 image"]),
        (MEDIUM, "3.5-large", ["width 192 with 3 joint and 2 image", "128 with 2 joint blocks"]),
    ],
)
def test_a_file_for_another_size_is_refused(file, model, words, sd3_model, clear, weights):
    model = sd3_model(model)
    before = snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        weights.apply_clear(model, clear(file))
    assert all(word in str(caught.value) for word in words)
    assert snapshot(model) == before


def test_a_file_with_other_image_blocks_than_the_model_is_refused(
    sd3_model, sd3_clear, sd3_folders, weights
):
    tensors = load_file(sd3_folders / "clear" / sd3_clear(MEDIUM).name)
    fewer = {key: t for key, t in tensors.items() if ".1.attn2." not in key}
    path = sd3_folders / "clear" / "fewer.safetensors"
    checkpoint.save(path, fewer, radius=4)
    with pytest.raises(CheckpointError, match=r"3 joint and 1 image .* 3 joint and 2 image"):
        weights.apply_clear(sd3_model(MEDIUM), weights.load_clear(path.name))


def test_a_file_of_another_family_is_named_with_both_families(
    sd3_model, sd3_clear, flux_model, nodes, sd3_folders
):
    with pytest.raises(ValueError) as error:
        nodes.CLEARLoader(flux_model("b"), sd3_clear(MEDIUM, 0, True).name, 1.0, 4)
    assert str(error.value).endswith(
        " is made for SD3, the model is FLUX. "
        "Choose a CLEAR file for FLUX, or connect a model of SD3."
    )


def test_a_flux_file_on_sd3_is_named_with_both_families(sd3_model, nodes, clear_folder):
    with pytest.raises(ValueError) as error:
        nodes.CLEARLoader(sd3_model(MEDIUM), "clear_a_local.safetensors", 1.0, 4)
    assert str(error.value).endswith(
        " is made for FLUX.1, the model is SD3. "
        "Choose a CLEAR file for SD3, or connect a model of FLUX.1."
    )
