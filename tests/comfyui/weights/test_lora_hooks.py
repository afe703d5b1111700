"""LoRA hooks with CLEAR weights: the same weights, whether loaded whole or streamed (low VRAM)."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from ..weights_fixtures import golden_clear
from .test_patches import CPU, LINEAR1, QKV, assert_same_bits, fused, plain_weights

STREAMED, WHOLE = 1, 0  # bytes that may be loaded; 0 is all of them
PROJ = "diffusion_model.double_blocks.0.img_attn.proj.weight"
HOOK_STRENGTH = 0.7


@pytest.fixture
def clear(host):
    return golden_clear("b-pooled")


@pytest.fixture
def file():
    """A LoRA on fused layers, one of which has rows that CLEAR leaves alone."""
    draw = torch.Generator().manual_seed(0)
    return {
        f"{key.removesuffix('.weight')}.lora_{part}.weight": 0.2
        * torch.randn(shape, generator=draw)
        for key, rows in ((QKV, 384), (LINEAR1, 896), (PROJ, 128))
        for part, shape in (("A", (4, 128)), ("B", (rows, 4)))
    }


@contextmanager
def running(model, hooks, memory):
    """Load a model as the sampler does, with hooks applied; afterwards it is as it was."""
    import comfy.hooks

    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
    model.register_all_hook_patches(hooks, target, {}, comfy.hooks.HookGroup())
    model.patch_model(device_to=CPU, lowvram_model_memory=memory)
    model.apply_hooks(hooks)
    try:
        yield
    finally:
        model.apply_hooks(None)
        model.unpatch_model(CPU)
        model.restore_hook_patches()


def weights_in_use(model, keys=(QKV, LINEAR1, PROJ)):
    """Return weights as their layers compute with them."""
    found = {}
    for key in keys:
        name, _, parameter = key.rpartition(".")
        module = model.model.get_submodule(name)
        value = getattr(module, parameter).detach().clone()
        for function in getattr(module, f"{parameter}_function"):
            value = function(value)
        found[key] = value
    return found


def hook(file, *keyframes):
    """Make a hook of a LoRA, as Create Hook LoRA does."""
    import comfy.hooks

    group = comfy.hooks.create_hook_lora(file, HOOK_STRENGTH, 0.0)
    if keyframes:
        frames = comfy.hooks.HookKeyframeGroup()
        for strength, start in keyframes:
            frames.add(comfy.hooks.HookKeyframe(strength, start))
        group.set_keyframes_on_hooks(frames)
    return group


def expected(base, file, strength, share=HOOK_STRENGTH):
    """Merge by hand: the CLEAR weights, and the LoRA's change added to them, in float64."""
    target = fused(base, "b-pooled")
    merged = {}
    for key in (QKV, LINEAR1, PROJ):
        down, up = (file[f"{key[:-7]}.lora_{part}.weight"].double() for part in ("A", "B"))
        merged[key] = base[key].double().lerp(target[key], strength) + share * up @ down
    return merged


def assert_near(actual, wanted, bits=2**-23):
    """A handful of roundings, next to the largest operand."""
    for key, tensor in wanted.items():
        limit = 10 * bits * tensor.abs().max().clamp(min=1)
        assert (actual[key].double() - tensor).abs().max() <= limit, key


@pytest.mark.parametrize("memory", [WHOLE, STREAMED], ids=["whole", "streamed"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_hook_is_added_to_the_clear_weights(strength, memory, flux_model, weights, clear, file):
    model = flux_model("b")
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear, strength)
    with running(patched, hook(file), memory):
        assert_near(weights_in_use(patched), expected(base, file, strength))
    assert_same_bits(plain_weights(model), base)


@pytest.mark.parametrize("memory", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_a_schedule_is_followed(memory, flux_model, weights, clear, file):
    model = flux_model("b")
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear)
    hooks = hook(file, (1.0, 0.0), (0.25, 0.5))
    for each in hooks.hooks:
        each.initialize_timesteps(patched.model)
    options = {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.5, 0.0])}}
    with running(patched, hooks, memory):
        for sigma, share in ((1.0, 1.0), (0.2, 0.25)):
            t = torch.tensor([sigma])
            patched.prepare_hook_patches_current_keyframe(t, hooks, options)
            patched.apply_hooks(hooks)
            wanted = expected(base, file, 1.0, HOOK_STRENGTH * share)
            assert_near(weights_in_use(patched), wanted)


@pytest.mark.parametrize("memory", [WHOLE, STREAMED], ids=["whole", "streamed"])
def test_without_its_hook_the_model_is_the_clear_one(memory, flux_model, weights, clear, file):
    model = flux_model("b")
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear)
    with running(patched, hook(file), memory):
        patched.apply_hooks(None)  # as for the other prompt of a pair
        found = weights_in_use(patched)
    for key, tensor in found.items():
        assert torch.equal(tensor.double(), fused(base, "b-pooled")[key])


@pytest.mark.parametrize("unloaded_with", ["the hook", "no hook"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_hook_keeps_its_effect_while_layer_by_layer_is_unloaded(
    strength, unloaded_with, flux_model, weights, clear, file
):
    model = flux_model("b")
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear, strength)
    wanted = expected(base, file, strength)
    hooks = hook(file)
    with running(patched, hooks, WHOLE):
        while patched.backup:
            patched.apply_hooks(hooks if unloaded_with == "the hook" else None)
            assert patched.partially_unload(CPU, 1)  # layer by layer
            patched.apply_hooks(hooks)
            assert_near(weights_in_use(patched), wanted)
        patched.apply_hooks(None)
        assert_near(weights_in_use(patched), expected(base, file, strength, 0.0))
    assert_same_bits(plain_weights(model), base)


def test_streamed_bf16_weights_lose_no_more_than_rounding(flux_model, weights, clear, file):
    model = flux_model("b", torch.bfloat16)
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear)
    with running(patched, hook(file), STREAMED):
        assert_near(weights_in_use(patched), expected(base, file, 1.0), bits=2**-9)


def test_a_run_without_hooks_leaves_no_wrapper(flux_model, weights, clear, file):
    import comfy.hooks

    patched = weights.apply_clear(flux_model("b"), clear)
    with running(patched, hook(file), STREAMED):
        assert any(patched.weight_wrapper_patches.values())
    with running(patched, comfy.hooks.HookGroup(), STREAMED):
        assert not any(patched.weight_wrapper_patches.values())


def test_a_lora_of_the_model_and_one_of_a_hook_add_up(flux_model, weights, clear, file):
    import comfy.sd

    model = flux_model("b")
    base = plain_weights(model)
    patched = weights.apply_clear(model, clear)
    both, _ = comfy.sd.load_lora_for_models(patched, None, file, 0.5, 0.0)
    with running(both, hook(file), STREAMED):
        assert_near(weights_in_use(both), expected(base, file, 1.0, HOOK_STRENGTH + 0.5))


def painted(model, hooks, streamed, callback=None):
    """Paint with a hook on the positive prompt alone, as KSampler does; return the latent."""
    import comfy.sample

    if streamed:
        load = model.load

        def load_nothing(device_to=None, **kwargs):
            load(device_to, **{**kwargs, "lowvram_model_memory": STREAMED, "full_load": False})

        model.load = load_nothing
    draw = torch.Generator().manual_seed(0)
    words = torch.randn(1, 20, 64, generator=draw), torch.randn(1, 32, generator=draw)
    negative = [[words[0], {"pooled_output": words[1]}]]
    positive = [[-words[0], {"pooled_output": words[1], **({"hooks": hooks} if hooks else {})}]]
    latent = torch.zeros(1, 16, 16, 12)
    noise = torch.randn(latent.shape, generator=draw)
    arguments = (noise, 3, 2.0, "euler", "simple", positive, negative, latent)
    with torch.inference_mode():
        return comfy.sample.sample(model, *arguments, disable_pbar=True, seed=1, callback=callback)


def test_a_scheduled_hook_paints_the_same_picture_streamed(flux_model, weights, clear, file):
    def paint(hooks, streamed):
        model = weights.apply_clear(flux_model("b"), clear)
        try:
            return painted(model, hooks, streamed)
        finally:
            model.detach()

    scheduled = (0.4, 0.0), (1.0, 0.6)
    whole = paint(hook(file, *scheduled), False)
    streamed = paint(hook(file, *scheduled), True)
    without = paint(None, True)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-4)
    assert (without - whole).abs().max() > 0.05


def test_a_hook_paints_the_same_picture_when_layers_are_unloaded_between_steps(
    flux_model, weights, clear, file
):
    def paint(freed):
        model = weights.apply_clear(flux_model("b"), clear)
        try:
            return painted(model, hook(file), False, lambda *_: model.partially_unload(CPU, freed))
        finally:
            model.detach()

    everything, nothing = 2**30, -(2**30)
    torch.testing.assert_close(paint(everything), paint(nothing), rtol=0, atol=1e-4)
