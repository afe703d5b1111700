"""Every LoRA format with CLEAR weights: order of nodes x format x dtype x strength x reference."""

from __future__ import annotations

import logging

import pytest
import torch

from ..weights_fixtures import golden_clear
from . import lora_formats
from .test_patches import CPU, fused, patched_weights, plain_weights

LORA_STRENGTH = 0.8
SCALED = "scaled fp8"
DTYPES = {str(t): t for t in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)}
CASES = [(1.0, False), (0.6, True)]  # strength, with a reference


@pytest.fixture(scope="module")
def clear(host):
    return golden_clear("b-pooled")


@pytest.fixture(scope="module", params=[*DTYPES, SCALED])
def model(request, flux_model):
    """A MODEL in a dtype; tests leave its weights as they are."""
    if request.param == SCALED:
        return scaled_model(flux_model("b"))
    return flux_model("b", DTYPES[request.param])


@pytest.fixture(scope="module")
def reference(flux_model):
    """A MODEL in bf16 that differs from it."""
    model = flux_model("b", torch.bfloat16)
    for tensor in model.model.parameters():
        tensor.data.mul_(0.9)
    return model


@torch.inference_mode()  # in which nodes load models
def scaled_model(plain):
    """Rebuild a MODEL with 8-bit weights and a scale for each layer, as its host has them."""
    import comfy.model_patcher
    import comfy.ops
    import comfy.utils

    config = plain.model.model_config
    state = {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in plain.model.diffusion_model.state_dict().items():
        state[name] = tensor
        if name.endswith(".weight") and tensor.ndim == 2:
            scale = tensor.abs().max() / 64  # of 448: what is added needs room too
            state[name] = (tensor / scale).to(torch.float8_e4m3fn)
            state[name.replace(".weight", ".scale_weight")] = scale
    if hasattr(comfy.ops, "scaled_fp8_ops"):
        del state["scaled_fp8"]
        config.scaled_fp8 = torch.float8_e4m3fn
    else:
        state, _ = comfy.utils.convert_old_quants(state)
        config.quant_config = {"mixed_ops": True}
    config.set_inference_dtype(torch.float32, torch.float32)
    model = config.get_model({})
    assert not model.diffusion_model.load_state_dict(state, strict=False).unexpected_keys
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def values(model):
    """Return all weights in float64, scaled ones as what they stand for."""
    import comfy.utils

    found = {}
    for key in model.model_state_dict("diffusion_model."):
        if key.endswith((".weight", ".bias")):
            tensor = comfy.utils.get_attr(model.model, key).detach()
            plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
            found[key] = (tensor if plain else tensor.dequantize()).double()
            found[key] = found[key] * scale_of(model, key)
    return found


def scale_of(model, key):
    """Return what a stored weight is multiplied by, on hosts that keep it beside the weight."""
    module = model.model.get_submodule(key.rpartition(".")[0])
    return getattr(module, "scale_weight", 1.0) if key.endswith(".weight") else 1.0


def content(model):
    """Return all bytes of a model."""
    return {
        name: getattr(tensor, "_qdata", tensor).detach().reshape(-1).view(torch.uint8).clone()
        for name, tensor in model.model.state_dict().items()
    }


def steps(model, key, wanted):
    """Return how far apart neighbouring numbers are that the model can hold."""
    import comfy.utils

    stored = comfy.utils.get_attr(model.model, key)
    data = getattr(stored, "_qdata", stored)
    # A handful of float32 roundings come before, next to the largest operand.
    before = 8 * 2**-23 * wanted.abs().max().clamp(min=1)
    if data.element_size() > 1:
        info = torch.finfo(data.dtype)
        return before + wanted.abs().clamp(min=info.smallest_normal) * info.eps
    chosen_anew = wanted.abs().max() / 448  # as newer hosts do
    scale = float(scale_of(model, key) if data is stored else chosen_anew)
    return before + torch.clamp(wanted.abs() / 8, min=2**-9 * scale)


@pytest.fixture(scope="module")
def by_hand(flux_model, model, reference):
    """Make a float32 MODEL with CLEAR weights merged by the formula, once per case."""
    own = values(model)
    start = values(reference)

    def merge(strength, with_reference):
        base = start if with_reference else own
        target = fused(base, "b-pooled")
        merged = flux_model("b")
        state = {key: own[key] + strength * (target[key] - base[key]) for key in own}
        assert not merged.model.load_state_dict(state, strict=False).unexpected_keys
        return merged

    made = {case: merge(*case) for case in CASES}
    return lambda *case: made[case]


def loader(name):
    """Return what the LoRA node does with a file of a format, and the LoRA."""
    import comfy.sd

    lora = lora_formats.make(name)

    def load(model):
        return comfy.sd.load_lora_for_models(model, None, lora.file, LORA_STRENGTH, 0.0)[0]

    return load, lora


@pytest.mark.parametrize("name", lora_formats.FORMATS)
@torch.inference_mode()  # as the host runs its nodes
def test_a_lora_adds_to_the_clear_weights_in_either_order(
    name, model, weights, clear, reference, by_hand, caplog
):
    load, lora = loader(name)
    before = content(model)
    for strength, with_reference in CASES:
        merged = by_hand(strength, with_reference)
        with caplog.at_level(logging.WARNING):
            expected = patched_weights(load(merged))
        assert not caplog.records  # all of the file's keys are used
        if lora.delta is not None:
            exact = lora.added_to(plain_weights(merged), LORA_STRENGTH)
            for key, tensor in exact.items():
                limit = 8 * 2**-23 * tensor.abs().max().clamp(min=1)
                assert (expected[key].double() - tensor).abs().max() <= limit, key
        assert not torch.equal(expected[lora_formats.QKV], plain_weights(merged)[lora_formats.QKV])
        apply = weights.apply_clear
        arguments = clear, strength, reference if with_reference else None
        for patched in (apply(load(model), *arguments), load(apply(model, *arguments))):
            patched.patch_model(device_to=CPU)
            found = values(patched)
            patched.unpatch_model(CPU)
            for key in patched.patches:
                wanted = expected[key].double()
                assert ((found[key] - wanted).abs() <= steps(model, key, wanted)).all(), key
    after = content(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def velocity(run, model):
    draw = torch.Generator().manual_seed(1)
    x, context = torch.randn(1, 16, 8, 12, generator=draw), torch.randn(1, 9, 64, generator=draw)
    return run(model, x, torch.tensor([0.7]), context, y=torch.randn(1, 32, generator=draw))


@pytest.mark.parametrize("name", lora_formats.FORMATS)
def test_the_picture_is_that_of_the_model_merged_by_hand(name, flux_model, run, weights, clear):
    load, _ = loader(name)
    model, merged = flux_model("b"), flux_model("b")
    merged.model.load_state_dict(patched_weights(weights.apply_clear(model, clear, 0.6)))
    expected, plain = velocity(run, load(merged)), velocity(run, model)
    assert (plain - expected).abs().max() > 1e-2
    for patched in (
        weights.apply_clear(load(model), clear, 0.6),
        load(weights.apply_clear(model, clear, 0.6)),
    ):
        assert torch.equal(velocity(run, patched), expected)
    assert torch.equal(velocity(run, model), plain)
