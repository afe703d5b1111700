"""A node pack for tests: a narrow FLUX, prompts and latents made of seeds, and what comes out."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import torch

MODELS = Path(__file__).resolve().parents[3] / "flux_models.py"


def _flux_models():
    spec = importlib.util.spec_from_file_location("clear_test_flux_models", MODELS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NarrowFlux:
    """A model of the golden cases; each load adds the process to a file."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {}), "log": ("STRING", {})}}

    def load(self, name, log):
        if log:
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
        models = _flux_models()
        return (models.make_flux(name, models.flux_weights(name)),)


class Shifted:
    """A model with one weight patched, as a LoRA does it."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "strength": ("FLOAT", {"default": 1.0})}}

    def patch(self, model, strength):
        model = model.clone()
        name = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
        weight = model.model.state_dict()[name]
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * 0.02
        model.add_patches({name: (change,)}, strength)
        return (model,)


class Trouble:
    """A model whose block does what a file says: an act, and the process that is to do it."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "flag": ("STRING", {})}}

    def patch(self, model, flag):
        model = model.clone()

        def act(args, extra):
            if os.path.exists(flag):
                what, process = Path(flag).read_text().split()
                if process in ("any", str(os.getpid())):
                    ACTS[what](flag)
            return extra["original_block"](args)

        model.set_model_patch_replace(act, "dit", "double_block", 1)
        return (model,)


def _kill(flag):
    Path(flag + ".at").write_text(str(time.time()))
    os._exit(1)


def _fail(flag):
    raise ValueError("the block is out of order")


def _run_out(flag):
    raise torch.OutOfMemoryError("no room")


def _sleep(flag):
    time.sleep(0.3)


ACTS = {"kill": _kill, "fail": _fail, "memory": _run_out, "sleep": _sleep}


class SeededText:
    """A prompt of random numbers, with a hook or without."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        numbers = {"tokens": ("INT", {}), "seed": ("INT", {})}
        return {"required": numbers, "optional": {"hooked": ("BOOLEAN", {})}}

    def make(self, tokens, seed, hooked=False):
        import comfy.hooks

        generator = torch.Generator().manual_seed(seed)
        cond = torch.randn(1, tokens, 64, generator=generator)
        pooled = torch.randn(1, 32, generator=generator)
        values = {"pooled_output": pooled, "guidance": 3.5}
        if hooked:
            group = comfy.hooks.HookGroup()
            hook = comfy.hooks.WeightHook(strength_model=1.0)
            hook.weights = {}
            group.add(hook)
            values["hooks"] = group
        return ([[cond, values]],)


class Controlled:
    """A prompt with the ControlNet that the test has put here."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "control"
    CATEGORY = "tests"
    net = None
    hint = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "name": ("STRING", {})}}

    def control(self, conditioning, name):
        net = self.net.copy().set_cond_hint(self.hint, 0.8, (0.0, 1.0))
        return ([[cond, {**values, "control": net}] for cond, values in conditioning],)


class ZeroLatent:
    """An empty latent of 16 channels."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"height": ("INT", {}), "width": ("INT", {}), "batch": ("INT", {})}}

    def make(self, height, width, batch=1):
        return ({"samples": torch.zeros(batch, 16, height, width)},)


class Keep:
    """Keeps the last latent for the test."""

    RETURN_TYPES = ()
    FUNCTION = "keep"
    OUTPUT_NODE = True
    CATEGORY = "tests"
    kept = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",)}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def keep(self, samples):
        Keep.kept = samples["samples"].clone()
        return ()


NODE_CLASS_MAPPINGS = {
    one.__name__: one
    for one in (NarrowFlux, Shifted, Trouble, SeededText, Controlled, ZeroLatent, Keep)
}
