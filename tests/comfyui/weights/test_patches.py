"""A CLEAR checkpoint on a model of the real host: which weights come out, whatever is on it."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
from safetensors.torch import load_file

from clear_attention.weights import CheckpointError, checkpoint

from ..golden import FOLDER
from ..weights_fixtures import FILES

STRENGTHS = (0.0, 0.3, 1.0, 1.5, -0.5)
CPU = torch.device("cpu")
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "diffusion_model.single_blocks.0.linear1.weight"


@torch.inference_mode()  # as the host runs its nodes
def patched_weights(model):
    """Return copies of all weights as the model runs with them, and leave the model unpatched."""
    model.patch_model(device_to=CPU)
    state = {name: tensor.clone() for name, tensor in model.model_state_dict().items()}
    model.unpatch_model(CPU)
    return state


def plain_weights(model):
    """Return copies of all weights of an unpatched model."""
    return {name: tensor.clone() for name, tensor in model.model_state_dict().items()}


def fused(base, file):
    """Write a file's tensors over the base weights, names and rows spelled out a second time."""
    state = {name: tensor.double().clone() for name, tensor in base.items()}
    for name, tensor in load_file(FOLDER / f"{FILES[file]}.safetensors").items():
        kind, index, _, layer, *_, parameter = name.split(".")
        if layer == "processor":
            continue
        if layer == "to_out":
            key = f"double_blocks.{index}.img_attn.proj.{parameter}"
        elif kind == "transformer_blocks":
            key = f"double_blocks.{index}.img_attn.qkv.{parameter}"
        else:
            key = f"single_blocks.{index}.linear1.{parameter}"
        start = {"to_q": 0, "to_k": 1, "to_v": 2, "to_out": 0}[layer] * len(tensor)
        state[f"diffusion_model.{key}"][start : start + len(tensor)] = tensor.double()
    return state


def assert_close(actual, expected, bits=2**-23):
    """Compare all weights; three roundings of float32 are allowed, next to the largest operand."""
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        difference = (tensor.double() - expected[name].double()).abs()
        assert difference.max() <= 8 * bits * expected[name].double().abs().max().clamp(min=1), name


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)), name


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("file", FILES)
def test_weights_are_interpolated_between_base_and_file(file, strength, flux_model, weights, clear):
    model = flux_model(file[0])
    base = plain_weights(model)
    target = fused(base, file)
    expected = {k: base[k].double() + strength * (target[k] - base[k].double()) for k in base}
    patched = weights.apply_clear(model, clear(file), strength)
    assert_close(patched_weights(patched), expected)


@pytest.mark.parametrize("file", FILES)
def test_full_strength_is_the_file_and_everything_else_the_base_to_the_bit(
    file, flux_model, weights, clear
):
    model = flux_model(file[0])
    base = plain_weights(model)
    patched = patched_weights(weights.apply_clear(model, clear(file), 1.0))
    target = fused(base, file)
    assert all(torch.equal(patched[name].double(), target[name]) for name in base)
    changed = {name for name in base if not torch.equal(patched[name], base[name])}
    assert len(changed) == len({rows.key for rows in clear(file).patches}) and not changed - {
        rows.key for rows in clear(file).patches
    }


def test_no_strength_is_no_patch(flux_model, weights, clear):
    model = flux_model("a")
    patched = weights.apply_clear(model, clear("a-local"), 0.0)
    assert patched is not model
    assert patched.patches == {}
    assert patched.patches_uuid == model.patches_uuid


@pytest.mark.parametrize("strength", [torch.nan, torch.inf])
def test_a_strength_must_be_finite(strength, flux_model, weights, clear):
    with pytest.raises(CheckpointError, match="finite"):
        weights.apply_clear(flux_model("a"), clear("a-local"), strength)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_get_the_files_values(dtype, flux_model, weights, clear):
    model = flux_model("a", dtype)
    base = plain_weights(model)
    patched = patched_weights(weights.apply_clear(model, clear("a-pooled"), 1.0))
    target = fused(base, "a-pooled")
    assert all(patched[name].dtype == base[name].dtype for name in base)
    # bf16 values below fp16's normal range lose bits there, nowhere else
    tiny = 2**-25 if dtype == torch.float16 else 0
    assert all((patched[n].double() - target[n]).abs().max() <= tiny for n in base)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_fp8_models_get_the_nearest_values_on_either_side(strength, flux_model, weights, clear):
    model = flux_model("b", torch.float8_e4m3fn)
    base = plain_weights(model)
    assert base[QKV].dtype == torch.float8_e4m3fn
    patched = patched_weights(weights.apply_clear(model, clear("b-pooled"), strength))
    target = fused(base, "b-pooled")
    for name in {rows.key for rows in clear("b-pooled").patches}:
        exact = base[name].double() + strength * (target[name] - base[name].double())
        # Stochastic rounding: within one step, 1/8 of the value or the smallest subnormal.
        step = torch.clamp(exact.abs() / 8, min=2**-9)
        assert ((patched[name].double() - exact).abs() <= step).all()


def loras(model):
    """Return ways of putting a LoRA on a model, by name."""
    import comfy.sd

    generator = torch.Generator().manual_seed(0)
    hidden = model.model.diffusion_model.hidden_size

    def random(*shape):
        return 0.05 * torch.randn(*shape, generator=generator)

    def adapter(**layers):
        file = {}
        for name, (rows, down, up) in layers.items():
            file[name.format(down)] = random(4, hidden)
            file[name.format(up)] = random(rows, 4)
        return lambda model, s=0.8: comfy.sd.load_lora_for_models(model, None, file, s, 0)[0]

    ab = ("lora_A", "lora_B")
    diffusers = {
        f"transformer.{block}.0.attn.to_{part}.{{}}.weight": (hidden, *ab)
        for block in ("transformer_blocks", "single_transformer_blocks")
        for part in "qkv"
    }
    rows = model.model.diffusion_model.single_blocks[0].linear1.weight.shape[0]
    fused_layers = {
        "diffusion_model.double_blocks.0.img_attn.qkv.{}.weight": (3 * hidden, *ab),
        "diffusion_model.single_blocks.0.linear1.{}.weight": (rows, *ab),
    }
    difference = random(rows, hidden)

    def plain(model, strength=0.8):
        model = model.clone()
        assert model.add_patches({LINEAR1: (difference,)}, strength)
        return model

    return {"diffusers": adapter(**diffusers), "fused": adapter(**fused_layers), "diff": plain}


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("name", ["diffusers", "fused", "diff"])
def test_a_lora_before_is_a_lora_after(name, strength, flux_model, weights, clear):
    model = flux_model("b")
    lora = loras(model)[name]
    base = plain_weights(model)
    before = patched_weights(weights.apply_clear(lora(model), clear("b-pooled"), strength))
    after = patched_weights(lora(weights.apply_clear(model, clear("b-pooled"), strength)))
    assert_same_bits(before, after)

    alone = patched_weights(lora(model))
    target = fused(base, "b-pooled")
    expected = {
        key: base[key].double() * (1 - strength)
        + strength * target[key]
        + (alone[key].double() - base[key].double())
        for key in base
    }
    assert any(not torch.equal(alone[key], base[key]) for key in base)
    assert_close(before, expected)


def test_loras_keep_their_own_order(flux_model, weights, clear):
    model = flux_model("b")
    model = loras(model)["fused"](loras(model)["diff"](model))
    entries = list(model.patches[LINEAR1])
    patched = weights.apply_clear(model, clear("b-pooled"))
    assert patched.patches[LINEAR1][3:] == entries
    assert [entry[3] for entry in patched.patches[LINEAR1][:3]] == [
        (0, 0, 128),
        (0, 128, 128),
        (0, 256, 128),
    ]


@pytest.mark.parametrize(("first", "second"), [*itertools.product([1.0, 0.3], [1.0, 0.3, 0.0])])
@pytest.mark.parametrize("with_lora", [False, True])
def test_of_two_checkpoints_the_last_wins(first, second, with_lora, flux_model, weights, clear):
    model = flux_model("a")
    if with_lora:
        model = loras(model)["fused"](model)
    once = weights.apply_clear(model, clear("a-pooled"), first)
    both = weights.apply_clear(once, clear("a-local"), second)
    alone = weights.apply_clear(model, clear("a-local"), second)
    assert both.patches.keys() == alone.patches.keys()
    assert {k: len(v) for k, v in both.patches.items()} == {
        k: len(v) for k, v in alone.patches.items()
    }
    assert both.patches_uuid != once.patches_uuid
    assert_same_bits(patched_weights(both), patched_weights(alone))


def snapshot(model):
    return {key: list(entries) for key, entries in model.patches.items()}, model.patches_uuid


def test_the_given_model_and_its_clones_stay_as_they_are(flux_model, weights, clear):
    model = loras(flux_model("a"))["fused"](flux_model("a"))
    clone = model.clone()
    first = weights.apply_clear(model, clear("a-local"))
    seen = [snapshot(each) for each in (model, clone, first)]
    second = weights.apply_clear(first, clear("a-pooled"), 0.5)
    weights.apply_clear(second, clear("a-local"), 0.0)
    second.clone().add_patches({LINEAR1: (torch.zeros(1),)})
    for each, before in zip((model, clone, first), seen, strict=True):
        patches, identity = snapshot(each)
        assert identity == before[1] and patches.keys() == before[0].keys()
        for key, entries in patches.items():
            assert all(a is b for a, b in zip(entries, before[0][key], strict=True))
    lists = [entries for each in (model, clone, first, second) for entries in each.patches.values()]
    assert len({id(entries) for entries in lists}) == len(lists)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_unpatching_restores_every_byte(dtype, flux_model, weights, clear):
    model = flux_model("b", dtype)
    before = plain_weights(model)
    patched = weights.apply_clear(model, clear("b-pooled"), 0.7)
    patched_weights(patched)
    assert_same_bits(plain_weights(model), before)
    assert_same_bits(patched_weights(model), before)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_streamed_weights_are_the_same(strength, flux_model, weights, clear):
    """Low VRAM: weights stay where they are, and the host patches a copy of each on its way."""
    model = flux_model("b")
    model = weights.apply_clear(loras(model)["fused"](model), clear("b-pooled"), strength)
    expected = patched_weights(model)
    model.patch_model(device_to=CPU, lowvram_model_memory=1)
    streamed = 0
    for name, module in model.model.named_modules():
        for parameter in ("weight", "bias"):
            for function in getattr(module, f"{parameter}_function", None) or []:
                value = function(getattr(module, parameter).detach().clone())
                assert torch.equal(value, expected[f"{name}.{parameter}"])
                streamed += 1
    model.unpatch_model(CPU)
    assert streamed == len(model.patches)


def test_patches_hold_plain_tensors_that_a_host_may_stage(flux_model, weights, clear):
    """Newer hosts copy the tensors of patches to the device ahead of their use."""
    import comfy.lora

    model = weights.apply_clear(flux_model("a"), clear("a-local"), 0.3)
    weight = model.model_state_dict()[QKV]
    direct = comfy.lora.calculate_weight(model.patches[QKV], weight.clone(), QKV)
    staged = [(s, stage(value), *rest) for s, value, *rest in model.patches[QKV]]
    for entry, original in zip(staged, model.patches[QKV], strict=True):
        entry[1][0].copy_(original[1][0])
    assert torch.equal(comfy.lora.calculate_weight(staged, weight.clone(), QKV), direct)


def stage(value):
    """Copy a patch's tensors as the host does where it stages them, else by hand."""
    import comfy.lora

    if not hasattr(comfy.lora, "prefetch_prepared_value"):
        if hasattr(value, "weights"):
            return type(value)(value.loaded_keys, stage(value.weights))
        return tuple(v if v is None else torch.empty_like(v) for v in value)
    counter, buffer = [0], torch.empty(2**22, dtype=torch.uint8)
    prepared = comfy.lora.prefetch_prepared_value(value, counter, buffer, None, False)
    assert counter[0] > 0
    return prepared


def merge(first, second, ratio=0.25):
    """Merge two models as the host's ModelMergeSimple does."""
    merged = first.clone()
    for key, patch in second.get_key_patches("diffusion_model.").items():
        merged.add_patches({key: patch}, 1.0 - ratio, ratio)
    return merged


def other_model(flux_model):
    other = flux_model("b")
    for tensor in other.model.parameters():
        tensor.data.mul_(-0.5)
    return other


def test_a_model_with_clear_can_be_merged(flux_model, weights, clear):
    model, other = flux_model("b"), other_model(flux_model)
    base = plain_weights(model)
    merged = merge(weights.apply_clear(model, clear("b-pooled")), other)
    target = fused(base, "b-pooled")
    expected = {k: 0.25 * target[k] - 0.75 * 0.5 * base[k].double() for k in base}
    expected |= {k: v.double() for k, v in base.items() if not k.startswith("diffusion_model.")}
    assert_close(patched_weights(merged), expected)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_clear_goes_onto_the_merged_model_but_under_its_loras(strength, flux_model, weights, clear):
    model, other = flux_model("b"), other_model(flux_model)
    base = plain_weights(model)
    lora = loras(model)["diff"]
    merged = merge(model, other)
    start = patched_weights(merged)
    target = fused(start, "b-pooled")
    added = {k: v.double() - base[k].double() for k, v in patched_weights(lora(model)).items()}
    expected = {
        k: (1 - strength) * start[k].double() + strength * target[k] + added[k] for k in base
    }
    assert_close(
        patched_weights(weights.apply_clear(lora(merged), clear("b-pooled"), strength)), expected
    )


def test_clear_goes_over_weights_that_were_set(flux_model, weights, clear):
    model = flux_model("b")
    base = plain_weights(model)
    model.add_patches({QKV: ("set", (torch.ones(3 * 128, 128),))})
    patched = patched_weights(weights.apply_clear(model, clear("b-pooled")))
    assert torch.equal(patched[QKV].double(), fused(base, "b-pooled")[QKV])


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        ("a-local", "b", ["width 256 with 1 double and 1 single", "width 128 with 2 double and 3"]),
        ("b-pooled", "a", ["width 128", "width 256"]),
    ],
)
def test_a_checkpoint_for_another_size_is_refused(file, name, words, flux_model, weights, clear):
    model = flux_model(name)
    before = snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        weights.apply_clear(model, clear(file))
    assert all(word in str(caught.value) for word in words)
    assert snapshot(model) == before


def narrower(tensors):
    return {name: tensor[(slice(128),) * tensor.ndim] for name, tensor in tensors.items()}


def with_another_block(kind):
    return lambda tensors: {
        **tensors,
        **{k.replace(".0.", ".1.", 1): v.clone() for k, v in tensors.items() if k.startswith(kind)},
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (narrower, "width 128 with 1 double and 1 single"),
        (with_another_block("transformer"), "width 256 with 2 double and 1 single"),
        (with_another_block("single"), "width 256 with 1 double and 2 single"),
    ],
)
def test_width_and_blocks_must_both_fit(change, words, flux_model, weights, tmp_path):
    tensors = load_file(FOLDER / "clear_a_local.safetensors")
    path = tmp_path / "clear_local_8.safetensors"
    checkpoint.save(path, change(tensors), radius=8)
    found = checkpoint.read(path)
    other = weights.ClearWeights(found, weights.Tensors(checkpoint.load(found)))
    with pytest.raises(CheckpointError, match=words):
        weights.apply_clear(flux_model("a"), other)


def test_a_model_of_another_family_is_refused(host, weights, clear):
    import comfy.model_patcher

    model = torch.nn.Module()
    model.diffusion_model = torch.nn.Linear(2, 2)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)
    with pytest.raises(CheckpointError, match=r"made for FLUX\.1, the model is Linear"):
        weights.apply_clear(patcher, clear("a-local"))


def test_a_model_without_the_biases_is_refused(flux_model, weights, clear):
    model = flux_model("a")
    model.model.diffusion_model.double_blocks[0].img_attn.qkv.bias = None
    with pytest.raises(CheckpointError, match=r"lacks 'double_blocks\.0\.img_attn\.qkv\.bias'"):
        weights.apply_clear(model, clear("a-local"))


def test_a_host_that_takes_only_some_patches_gets_none(flux_model, weights, clear, monkeypatch):
    model = flux_model("a")
    before = snapshot(model)
    original = type(model).add_patches

    def forgetful(self, patches, *args, **kwargs):
        return original(self, dict(list(patches.items())[1:]), *args, **kwargs)

    monkeypatch.setattr(type(model), "add_patches", forgetful)
    with pytest.raises(CheckpointError, match="the model took 13 of 14 weights"):
        weights.apply_clear(model, clear("a-local"))
    assert snapshot(model) == before


def test_packed_weights_are_not_read(flux_model, weights, clear):
    """Quantised formats keep bytes of another shape; the host unpacks them when it patches."""
    model = flux_model("a")
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            packed = torch.zeros(module.weight.shape[0], 17, dtype=torch.uint8)
            module.weight = torch.nn.Parameter(packed, requires_grad=False)
    patched = weights.apply_clear(model, clear("a-local"))
    assert len(patched.patches) == 6


def test_tensors_live_as_long_as_a_model_that_uses_them(flux_model, weights, clear):
    import weakref

    loaded = clear("a-local")
    alive = weakref.ref(loaded.tensors)
    patched = weights.apply_clear(flux_model("a"), loaded)
    clone = patched.clone()
    del loaded, patched
    gc.collect()
    assert alive() is not None
    del clone
    gc.collect()
    assert alive() is None
