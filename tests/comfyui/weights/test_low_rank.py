"""A CLEAR checkpoint of low rank on models of the real host: which weights come out."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref

import pytest
import torch

from clear_attention.distill.student import Student
from clear_attention.families.names import ModelSize
from clear_attention.weights import CheckpointError, low_rank
from clear_attention.weights.rows import change_rows

from ..weights_fixtures import golden_clear
from .test_patches import (
    CPU,
    LINEAR1,
    QKV,
    assert_close,
    assert_same_bits,
    loras,
    merge,
    other_model,
    patched_weights,
    plain_weights,
    snapshot,
    stage,
)

MODELS = ("a", "b", "3.5-large", "3.5-medium")
STRENGTHS = (0.0, 0.5, 1.0, -1.0)
RADIUS = 6
ATTENTIONS = {
    "double": "transformer_blocks.{}.attn",
    "single": "single_transformer_blocks.{}.attn",
    "joint": "transformer_blocks.{}.attn",
    "image": "transformer_blocks.{}.attn2",
}


@pytest.fixture
def model_of(flux_model, sd3_model):
    """Make a fresh MODEL by its name, of either family."""
    return lambda name, *dtype: (sd3_model if "." in name else flux_model)(name, *dtype)


@pytest.fixture
def files(sd3_folders, monkeypatch, tmp_path):
    """One folder of this test, in which both the CLEAR node and the LoRA node look for files."""
    import folder_paths

    for kind in ("clear", "loras"):
        entry = ([str(tmp_path)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, entry)
    return tmp_path


@pytest.fixture
def write(files, weights):
    """Write random changes of a model as a file; return its name and its tensors."""
    from clear_attention.comfyui.weights import base

    def write(model, rank=3, pool_factor=0, changes=lambda tensors: tensors):
        table, size = base.table_and_size(model)
        generator = torch.Generator().manual_seed(rank)
        tensors = {}
        for layer in change_rows(table, size):
            down = torch.randn(rank, size.hidden, generator=generator)
            up = torch.randn(size.hidden, rank, generator=generator)
            tensors[f"{layer}.lora_A.weight"] = down / size.hidden**0.5
            tensors[f"{layer}.lora_B.weight"] = up / 4
        if pool_factor:
            blocks = [(kind, i) for kind, count in size.blocks.items() for i in range(count)]
            pooling = torch.rand(len(blocks), pool_factor, pool_factor, generator=generator)
            tensors |= table.pooling_tensors(dict(zip(blocks, pooling, strict=True)))
        tensors = changes({name: tensor.bfloat16() for name, tensor in tensors.items()})
        name = f"{table.family}_{size.hidden}_{rank}_{pool_factor}.safetensors"
        low_rank.save(files / name, tensors, radius=RADIUS)
        return name, tensors

    return write


@pytest.fixture
def clear(write, weights):
    """Write random changes of a model, and load them."""
    return lambda *args, **kwargs: weights.load_clear(write(*args, **kwargs)[0])


@pytest.fixture
def whole(host):
    """Load a golden checkpoint of whole weights for one of the FLUX models."""
    return golden_clear


def changed(model, tensors, strength=1.0):
    """Add changes to a model's weights in float64, where the host's own table says."""
    import comfy.utils

    network = model.model.diffusion_model
    hidden = network.hidden_size
    if hasattr(network, "joint_blocks"):
        config = {"depth": len(network.joint_blocks)}
        places = comfy.utils.mmdit_to_diffusers(config, "diffusion_model.")
    else:
        config = {
            "depth": len(network.double_blocks),
            "depth_single_blocks": len(network.single_blocks),
            "hidden_size": hidden,
        }
        places = comfy.utils.flux_to_diffusers(config, "diffusion_model.")
    state = {name: tensor.double() for name, tensor in plain_weights(model).items()}
    for name in tensors:
        layer, is_down, _ = name.partition(".lora_A.weight")
        if not is_down:
            continue
        place = places[f"{layer.removeprefix('transformer.')}.weight"]
        key, (_, start, rows) = (place, (0, 0, hidden)) if isinstance(place, str) else place
        down, up = tensors[name].double(), tensors[f"{layer}.lora_B.weight"].double()
        scale = float(tensors.get(f"{layer}.alpha", len(down))) / len(down)
        state[key][start : start + rows] += strength * scale * up @ down
    return state


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", MODELS)
def test_the_change_is_added_in_proportion_to_the_strength(
    name, strength, model_of, write, weights
):
    model = model_of(name)
    base = plain_weights(model)
    file, tensors = write(model)
    patched = weights.apply_clear(model, weights.load_clear(file), strength)
    actual = patched_weights(patched)
    assert_close(actual, changed(model, tensors, strength))
    moved = {key for key in base if not torch.equal(actual[key], base[key])}
    assert moved == ({rows.key for rows in weights.load_clear(file).patches} if strength else set())
    assert all(key.endswith(".weight") for key in moved)


def test_a_scale_in_the_file_counts(flux_model, write, weights):
    def scaled(tensors):
        layers = [name.removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
        alphas = {f"{layer}.alpha": torch.tensor(0.5 + i) for i, layer in enumerate(layers[1:])}
        return tensors | alphas

    model = flux_model("b")
    file, tensors = write(model, changes=scaled)
    patched = weights.apply_clear(model, weights.load_clear(file), 0.5)
    assert_close(patched_weights(patched), changed(model, tensors, 0.5))


def test_image_attention_may_stay_as_it_is(sd3_model, write, weights):
    model = sd3_model("3.5-medium")
    file, tensors = write(
        model, changes=lambda tensors: {k: t for k, t in tensors.items() if "attn2" not in k}
    )
    patched = patched_weights(weights.apply_clear(model, weights.load_clear(file)))
    assert_close(patched, changed(model, tensors))


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_the_hosts_lora_node_makes_the_same_weights_of_the_file(
    name, strength, model_of, write, weights, caplog
):
    from nodes import LoraLoaderModelOnly

    model = model_of(name)
    file, _ = write(model, pool_factor=2)
    ours = weights.apply_clear(model, weights.load_clear(file), strength)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        theirs, *_ = LoraLoaderModelOnly().load_lora_model_only(model, file, strength)
    assert_same_bits(patched_weights(theirs), patched_weights(ours))
    assert all("spatial_weight" in record.message for record in caplog.records)


@pytest.mark.parametrize("name", ["a", "3.5-medium"])
def test_the_node_brings_the_files_window_and_pooling(name, model_of, write, nodes, product):
    patch = product("comfyui.core.patch")
    model = model_of(name)
    file, tensors = write(model, pool_factor=2)

    def settings(*inputs):
        patched = nodes.CLEARLoader(model, file, *inputs)
        return patched.model_options["transformer_options"][patch.SETTINGS_KEY]

    assert (settings().local.radius, settings().local.pool_factor) == (RADIUS, 2)
    assert settings(1.0, 9).local.radius == 9
    pooling = settings().local.pool_weights
    assert len(pooling) == sum(name.endswith("spatial_weight") for name in tensors)
    for (kind, index), pooled in pooling.items():
        name = f"{ATTENTIONS[kind].format(index)}.processor.spatial_weight"
        assert torch.equal(pooled.weight, tensors[name][0, 0, 0, :, 0, :, 0])
    assert_close(patched_weights(nodes.CLEARLoader(model, file)), changed(model, tensors))
    assert nodes.CLEARLoader(model, file, 0.0) is model


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", ["diffusers", "fused", "diff"])
def test_a_lora_before_is_a_lora_after(name, strength, flux_model, write, weights):
    model = flux_model("b")
    lora = loras(model)[name]
    base = plain_weights(model)
    file, tensors = write(model)
    clear = weights.load_clear(file)
    before = patched_weights(weights.apply_clear(lora(model), clear, strength))
    after = patched_weights(lora(weights.apply_clear(model, clear, strength)))
    assert_same_bits(before, after)

    alone, target = patched_weights(lora(model)), changed(model, tensors, strength)
    assert any(not torch.equal(alone[key], base[key]) for key in base)
    expected = {key: target[key] + (alone[key].double() - base[key].double()) for key in base}
    assert_close(before, expected)


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("second_strength", [1.0, 0.3, 0.0])
@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in itertools.product(["low", "lower", "whole"], repeat=2) if "low" in pair],
)
def test_of_two_checkpoints_the_last_wins_whatever_their_forms(
    first, second, second_strength, with_lora, flux_model, clear, whole, weights
):
    model = flux_model("a")
    load = {
        "low": lambda: clear(model),
        "lower": lambda: clear(model, rank=1),
        "whole": lambda: whole("a-local"),
    }
    if with_lora:
        model = loras(model)["diffusers"](model)
    once = weights.apply_clear(model, load[first]()).clone()
    both = weights.apply_clear(once, load[second](), second_strength)
    alone = weights.apply_clear(model, load[second](), second_strength)
    assert {k: len(v) for k, v in both.patches.items()} == {
        k: len(v) for k, v in alone.patches.items()
    }
    assert both.patches_uuid != once.patches_uuid
    assert_same_bits(patched_weights(both), patched_weights(alone))


def test_the_given_model_and_its_clones_stay_as_they_are(flux_model, clear, whole, weights):
    model = loras(flux_model("a"))["fused"](flux_model("a"))
    clone = model.clone()
    first = weights.apply_clear(model, clear(model))
    seen = [snapshot(each) for each in (model, clone, first)]
    second = weights.apply_clear(first, clear(model, rank=1), 0.5)
    weights.apply_clear(second, whole("a-local"))
    weights.apply_clear(second, clear(model), 0.0)
    for each, before in zip((model, clone, first), seen, strict=True):
        patches, identity = snapshot(each)
        assert identity == before[1] and patches.keys() == before[0].keys()
        for key, entries in patches.items():
            assert all(a is b for a, b in zip(entries, before[0][key], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_unpatching_restores_every_byte(dtype, flux_model, clear, weights):
    model = flux_model("b", dtype)
    before = plain_weights(model)
    patched = weights.apply_clear(model, clear(model), 0.7)
    assert not torch.equal(patched_weights(patched)[QKV].float(), before[QKV].float())
    assert_same_bits(plain_weights(model), before)
    assert_same_bits(patched_weights(model), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_get_the_nearest_values(dtype, flux_model, write, weights):
    model = flux_model("b", dtype)
    file, tensors = write(model)
    base, target = plain_weights(model), changed(model, tensors)
    patched = patched_weights(weights.apply_clear(model, weights.load_clear(file)))
    assert all(patched[name].dtype == base[name].dtype for name in base)
    # One rounding, which the host makes stochastic for some dtypes: one step instead of a half.
    assert_close(patched, target, torch.finfo(dtype).eps / 8)


def test_streamed_weights_are_the_same(flux_model, clear, weights):
    """Low VRAM: weights stay where they are, and the host patches a copy of each on its way."""
    model = flux_model("b")
    model = weights.apply_clear(loras(model)["fused"](model), clear(model), 0.3)
    expected = patched_weights(model)
    model.patch_model(device_to=CPU, lowvram_model_memory=1)
    streamed = 0
    for name, module in model.model.named_modules():
        for function in getattr(module, "weight_function", None) or []:
            value = function(module.weight.detach().clone())
            assert torch.equal(value, expected[f"{name}.weight"])
            streamed += 1
    model.unpatch_model(CPU)
    assert streamed == len(model.patches)


def test_patches_are_the_hosts_own_which_it_may_stage(flux_model, clear, weights):
    """Newer hosts copy a patch's tensors to the device ahead of their use, and rebuild it."""
    import comfy.lora
    from comfy.weight_adapter import LoRAAdapter

    model = flux_model("a")
    model = weights.apply_clear(model, clear(model), 0.3)
    entries = model.patches[QKV]
    assert {type(value) for _, value, *_ in entries} == {LoRAAdapter}
    weight = model.model_state_dict()[QKV]
    direct = comfy.lora.calculate_weight(entries, weight.clone(), QKV)
    staged = [(strength, stage(value), *rest) for strength, value, *rest in entries]
    for entry, original in zip(staged, entries, strict=True):
        for copied, tensor in zip(entry[1].weights[:2], original[1].weights[:2], strict=True):
            copied.copy_(tensor)
    assert torch.equal(comfy.lora.calculate_weight(staged, weight.clone(), QKV), direct)


def test_a_model_with_clear_can_be_merged(flux_model, write, weights):
    model, other = flux_model("b"), other_model(flux_model)
    base = plain_weights(model)
    file, tensors = write(model)
    merged = merge(weights.apply_clear(model, weights.load_clear(file)), other)
    target = changed(model, tensors)
    expected = {k: 0.25 * target[k] - 0.75 * 0.5 * base[k].double() for k in base}
    expected |= {k: v.double() for k, v in base.items() if not k.startswith("diffusion_model.")}
    assert_close(patched_weights(merged), expected)


def test_clear_goes_onto_the_merged_model_but_under_its_loras(flux_model, write, weights):
    model, other = flux_model("b"), other_model(flux_model)
    file, tensors = write(model)
    merged = merge(model, other)
    start = patched_weights(merged)
    base, target = plain_weights(model), changed(model, tensors)
    loaded = loras(model)["diff"](merged)
    patched = weights.apply_clear(loaded, weights.load_clear(file))
    added = patched_weights(loaded)[LINEAR1].double() - start[LINEAR1].double()
    expected = {k: start[k].double() + target[k] - base[k].double() for k in base}
    expected[LINEAR1] += added
    assert_close(patched_weights(patched), expected)
    strengths = [strength_model for _, _, strength_model, *_ in patched.patches[LINEAR1]]
    assert strengths == [0.25, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("file", "model"), [("a", "b"), ("b", "a"), ("3.5-large", "a")])
def test_a_file_for_another_model_is_refused(file, model, model_of, clear, weights):
    loaded = clear(model_of(file))
    with pytest.raises(CheckpointError, match="made for"):
        weights.apply_clear(model_of(model), loaded)


def test_biases_are_not_needed(flux_model, clear, weights):
    model = flux_model("a")
    model.model.diffusion_model.double_blocks[0].img_attn.qkv.bias = None
    assert weights.apply_clear(model, clear(model)).patches


def test_tensors_are_shared_and_live_as_long_as_a_model_that_uses_them(flux_model, write, weights):
    model = flux_model("a")
    file, _ = write(model)
    first, second = weights.load_clear(file), weights.load_clear(file, radius=9)
    assert first.tensors is second.tensors
    alive = weakref.ref(first.tensors)
    patched = weights.apply_clear(model, first)
    held = {tensor.data_ptr() for tensor in first.tensors.by_name.values()}
    used = {t.data_ptr() for e in patched.patches[QKV] for t in e[1].weights[:2]}
    assert len(used) == 6 and used <= held
    clone = patched.clone()
    del first, second, patched
    gc.collect()
    assert alive() is not None
    del clone
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("name", ["a", "b", "3.5-medium"])
def test_a_students_file_does_what_the_student_does(name, model_of, files, weights, pack):
    from clear_attention.comfyui.weights.base import table_and_size
    from clear_attention.comfyui.weights.loader import load_onto

    model = model_of(name)
    table, size = table_and_size(model)
    student = Student(table, ModelSize(size.hidden, size.blocks, pool_factor=2), rank=3, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in student.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    low_rank.save(files / "x.safetensors", student.low_rank(torch.float32), radius=4)
    network = model.model.diffusion_model
    x = torch.randn(5, size.hidden, generator=generator)
    layers = sorted({rows.key for rows in change_rows(table, size).values()})

    def outputs():
        modules = (network.get_submodule(key.removesuffix(".weight")) for key in layers)
        with torch.inference_mode():
            return [module(x) for module in modules]

    plain = outputs()
    with student.attached(network):
        expected = outputs()
    loaded = load_onto(model, "x.safetensors")
    loaded.patch_model(device_to=CPU)
    actual = outputs()
    loaded.unpatch_model(CPU)
    for before, ours, theirs in zip(plain, actual, expected, strict=True):
        assert not torch.allclose(before, theirs, atol=1e-2)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * float(theirs.abs().max()))
    for block, pooling in weights.load_clear("x.safetensors").pooling_weights.items():
        assert torch.equal(pooling, student.pooling_weights[block].detach())
