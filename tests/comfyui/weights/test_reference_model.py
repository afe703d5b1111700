"""CLEAR weights as a change: what distilling did to the reference is added to a finetune."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref

import pytest
import torch

from clear_attention.weights import CheckpointError, checkpoint

from ..weights_fixtures import FILES
from .test_lora_hooks import (
    HOOK_STRENGTH,
    STREAMED,
    WHOLE,
    assert_near,
    hook,
    running,
    weights_in_use,
)
from .test_lora_matrix import scaled_model
from .test_patches import (
    CPU,
    LINEAR1,
    QKV,
    STRENGTHS,
    assert_close,
    assert_same_bits,
    fused,
    loras,
    merge,
    other_model,
    patched_weights,
    plain_weights,
    snapshot,
)


@pytest.fixture
def finetune(flux_model):
    """Make a MODEL whose weights differ from the reference's of that name by a tenth or so."""

    def make(name, dtype=torch.float32):
        model = flux_model(name, dtype)
        draw = torch.Generator().manual_seed(1)
        for tensor in model.model.parameters():
            noise = torch.randn(tensor.shape, generator=draw) * tensor.float().std() * 0.1
            tensor.data.copy_((tensor.float() + noise.nan_to_num()).to(dtype))
        return model

    return make


def added(model, reference, file, strength):
    """Write the formula down a second time, in float64."""
    own, base = plain_weights(model), plain_weights(reference)
    target = fused(base, file)
    return {k: own[k].double() + strength * (target[k] - base[k].double()) for k in own}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("file", FILES)
def test_what_distilling_changed_is_added(file, strength, flux_model, finetune, weights, clear):
    model, reference = finetune(file[0]), flux_model(file[0])
    expected = added(model, reference, file, strength)
    patched = weights.apply_clear(model, clear(file), strength, reference)
    assert_close(patched_weights(patched), expected)
    assert bool(patched.patches) == bool(strength)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_where_nothing_was_finetuned_the_file_comes_in_exactly(dtype, flux_model, weights, clear):
    model, reference = flux_model("b", dtype), flux_model("b", dtype)
    patched = weights.apply_clear(model, clear("b-pooled"), 1.0, reference)
    expected = patched_weights(weights.apply_clear(model, clear("b-pooled")))
    assert_same_bits(patched_weights(patched), expected)
    patched.patch_model(device_to=CPU, lowvram_model_memory=STREAMED)
    streamed = weights_in_use(patched, (QKV, LINEAR1))
    patched.unpatch_model(CPU)
    assert all(torch.equal(streamed[key], expected[key]) for key in streamed)


def test_a_model_of_8_bits_takes_a_reference_of_16(flux_model, finetune, weights, clear):
    model, reference = finetune("b", torch.float8_e4m3fn), flux_model("b", torch.bfloat16)
    expected = added(model, reference, "b-pooled", 1.0)
    patched = weights.apply_clear(model, clear("b-pooled"), 1.0, reference)
    actual = patched_weights(patched)
    for key in patched.patches:
        # Stochastic rounding: within one step, 1/8 of the value or the smallest subnormal.
        step = torch.clamp(expected[key].abs() / 8, min=2**-9)
        assert ((actual[key].double() - expected[key]).abs() <= step).all(), key


@pytest.mark.parametrize("loaded", [False, True])
def test_loras_on_the_reference_do_not_leak_in(loaded, flux_model, finetune, weights, clear):
    model, plain = finetune("b"), flux_model("b")
    expected = patched_weights(weights.apply_clear(model, clear("b-pooled"), 0.7, plain))
    reference = weights.apply_clear(loras(plain)["fused"](plain), clear("b-pooled"))
    if loaded:
        reference.patch_model(device_to=CPU)
    patched = weights.apply_clear(model, clear("b-pooled"), 0.7, reference)
    actual = patched_weights(patched)
    reference.unpatch_model(CPU)
    assert_same_bits(actual, expected)
    assert_same_bits(patched_weights(patched), expected)


@pytest.mark.parametrize("memory", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_loras_and_hooks_in_use_on_the_reference_do_not_leak_in(
    memory, flux_model, finetune, weights, clear
):
    model, plain = finetune("b"), flux_model("b")
    expected = patched_weights(weights.apply_clear(model, clear("b-pooled"), 0.7, plain))
    reference = loras(plain)["fused"](plain)
    file = {
        LINEAR1.replace("weight", f"lora_{part}.weight"): torch.ones(shape)
        for part, shape in (("A", (4, 128)), ("B", (896, 4)))
    }
    with running(reference, hook(file), memory):
        patched = weights.apply_clear(model, clear("b-pooled"), 0.7, reference)
        actual = patched_weights(patched)
    assert_same_bits(actual, expected)


def test_the_references_tensors_are_shared_and_live_as_long_as_they_are_used(
    flux_model, finetune, weights, clear
):
    model, reference = finetune("b"), flux_model("b")
    own = reference.model.diffusion_model.single_blocks[0].linear1.weight.data_ptr()
    patched = weights.apply_clear(model, clear("b-pooled"), 1.0, reference)
    values = [value for _, value, *_ in patched.patches[LINEAR1]]
    assert own in {value[0].data_ptr() for value in values}
    alive = weakref.ref(values[0].tensors)
    del values, reference
    gc.collect()
    assert alive() is not None
    assert_close(
        patched_weights(patched),
        added(model, flux_model("b"), "b-pooled", 1.0),
    )
    del patched
    gc.collect()
    assert alive() is None


def test_the_references_weights_lie_where_the_host_keeps_unloaded_ones(
    flux_model, finetune, weights, clear
):
    reference = flux_model("b")
    reference.offload_device = torch.device("meta")  # the one other device that there is anywhere
    patched = weights.apply_clear(finetune("b"), clear("b-pooled"), 1.0, reference)
    for entries in patched.patches.values():
        devices = {-1.0: "meta", 1.0: "cpu"}
        assert all(value[0].device.type == devices[s] for s, value, *_ in entries)


def test_the_model_itself_as_reference_changes_nothing(flux_model, weights, clear):
    model = loras(flux_model("b"))["fused"](flux_model("b"))
    file = clear("b-pooled")
    expected = weights.apply_clear(model, file, 0.3)
    patched = weights.apply_clear(model, file, 0.3, model.clone())
    assert patched.patches == expected.patches


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_a_merged_model_keeps_what_it_merged(strength, flux_model, weights, clear):
    reference = flux_model("b")
    merged = merge(reference, other_model(flux_model))
    start = patched_weights(merged)
    base = plain_weights(reference)
    target = fused(base, "b-pooled")
    expected = {k: start[k].double() + strength * (target[k] - base[k].double()) for k in base}
    patched = weights.apply_clear(merged, clear("b-pooled"), strength, reference)
    assert_close(patched_weights(patched), expected)


@pytest.mark.parametrize("name", ["diffusers", "fused", "diff"])
def test_a_lora_before_is_a_lora_after(name, flux_model, finetune, weights, clear):
    model, reference = finetune("b"), flux_model("b")
    lora = loras(model)[name]
    before = weights.apply_clear(lora(model), clear("b-pooled"), 0.6, reference)
    after = lora(weights.apply_clear(model, clear("b-pooled"), 0.6, reference))
    assert_same_bits(patched_weights(before), patched_weights(after))


@pytest.mark.parametrize(("first", "second"), [*itertools.product([True, False], repeat=2)])
def test_of_two_nodes_the_last_wins(first, second, flux_model, finetune, weights, clear):
    model, reference = finetune("a"), flux_model("a")
    once = weights.apply_clear(model, clear("a-pooled"), 0.8, reference if first else None)
    last = clear("a-local"), 0.5, reference if second else None
    both, alone = weights.apply_clear(once, *last), weights.apply_clear(model, *last)
    assert {k: len(v) for k, v in both.patches.items()} == {
        k: len(v) for k, v in alone.patches.items()
    }
    assert_same_bits(patched_weights(both), patched_weights(alone))
    assert weights.apply_clear(once, clear("a-local"), 0.0).patches == {}


def test_both_models_stay_as_they_are(flux_model, finetune, weights, clear):
    model, reference = finetune("b"), flux_model("b")
    before = [(snapshot(each), plain_weights(each)) for each in (model, reference)]
    patched_weights(weights.apply_clear(model, clear("b-pooled"), 0.7, reference))
    for each, (patches, state) in zip((model, reference), before, strict=True):
        assert snapshot(each) == patches
        assert_same_bits(plain_weights(each), state)


def test_a_hook_keeps_its_effect(flux_model, finetune, weights, clear):
    draw = torch.Generator().manual_seed(0)
    name = QKV.removesuffix(".weight")
    down, up = torch.randn(4, 128, generator=draw), torch.randn(384, 4, generator=draw)
    file = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    model, reference = finetune("b"), flux_model("b")
    expected = added(model, reference, "b-pooled", 1.0)[QKV]
    expected += HOOK_STRENGTH * up.double() @ down.double()
    patched = weights.apply_clear(model, clear("b-pooled"), 1.0, reference)
    with running(patched, hook(file), STREAMED):
        assert_near(weights_in_use(patched, (QKV,)), {QKV: expected})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_reference_of_8_bits_is_refused(dtype, flux_model, finetune, weights, clear):
    model = finetune("b")
    with pytest.raises(CheckpointError, match=r"reference_model must .* got float8.* 16-bit"):
        weights.apply_clear(model, clear("b-pooled"), 1.0, flux_model("b", dtype))
    assert model.patches == {}


def test_a_quantised_reference_is_refused(flux_model, finetune, weights, clear):
    reference = flux_model("b")
    packed = torch.nn.Parameter(torch.zeros(384, 16, dtype=torch.uint8), requires_grad=False)
    reference.model.diffusion_model.double_blocks[0].img_attn.qkv.weight = packed
    with pytest.raises(CheckpointError, match=r"reference_model must .* got uint8"):
        weights.apply_clear(finetune("b"), clear("b-pooled"), 1.0, reference)


def test_a_scaled_reference_is_refused(flux_model, finetune, weights, clear):
    reference = scaled_model(flux_model("b"))
    got = r"reference_model must .* got (float8_e4m3fn|QuantizedTensor) in .* 16-bit"
    with pytest.raises(CheckpointError, match=got):
        weights.apply_clear(finetune("b"), clear("b-pooled"), 1.0, reference)


def test_a_key_that_is_no_attribute_does_not_matter(flux_model, finetune, weights, clear):
    model, reference, file = finetune("b"), flux_model("b"), clear("b-pooled")
    expected = weights.apply_clear(model, file, 1.0, reference).patches
    layer = reference.model.diffusion_model.single_blocks[0].linear1
    layer.register_state_dict_post_hook(  # as ComfyUI-GGUF has it, for the largest layer
        lambda _, state, prefix, *__: state.update({f"{prefix}temp.weight": torch.zeros(1)})
    )
    assert any(key.endswith("temp.weight") for key in reference.model_state_dict())
    patched = weights.apply_clear(model, file, 1.0, reference)
    for key, entries in patched.patches.items():
        for (_, ours, *_), (_, wanted, *_) in zip(entries, expected[key], strict=True):
            assert torch.equal(ours[0], wanted[0])


def test_a_reference_of_another_size_is_refused(flux_model, finetune, weights, clear):
    with pytest.raises(CheckpointError, match="reference_model has width 256"):
        weights.apply_clear(finetune("b"), clear("b-pooled"), 1.0, flux_model("a"))


def test_a_reference_without_effect_is_warned_about(
    flux_model, finetune, weights, published_low_rank, caplog
):
    model, reference = finetune("a"), flux_model("a")
    with caplog.at_level(logging.WARNING):
        patched = weights.apply_clear(model, published_low_rank, 1.0, reference)
    assert "reference_model has no effect" in caplog.text
    alone = weights.apply_clear(model, published_low_rank)
    assert_same_bits(patched_weights(patched), patched_weights(alone))


@pytest.fixture
def published_low_rank(weights, tmp_path):
    """A checkpoint of low rank for the smaller model."""
    from clear_attention.weights import low_rank

    layers = [
        *(f"transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
        *(f"single_transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v")),
    ]
    tensors = {
        f"transformer.{layer}.lora_{part}.weight": torch.full(shape, 0.1)
        for layer in layers
        for part, shape in (("A", (1, 256)), ("B", (256, 1)))
    }
    path = tmp_path / "x.safetensors"
    low_rank.save(path, tensors, radius=4)
    found = checkpoint.read(path)
    return weights.ClearWeights(found, weights.Tensors(checkpoint.load(found)))
