"""Fixtures and pictures for the tests of CLEAR Upscale, on the demo's model in the real host."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from .vae_fixtures import picture

PROMPT = "a photograph of dandelions in a meadow"
DEFAULTS = dict(
    stages="", denoise="0.5", seed=3, steps=4, cfg=1.0, sampler_name="euler", scheduler="simple",
    guidance_strength=0.0, guidance_decay=1.0, trained_size=0, vae_tile=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(host):
    """The demo's model, and an encoded prompt."""
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP

    clip = DemoCLIP()
    tokens = clip.tokenize(PROMPT)
    prompt = clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": 3.5})
    return SimpleNamespace(model=load_model(), prompt=prompt)


@pytest.fixture
def modules(product):
    """The pack's modules for the cascade, by their last names."""
    return SimpleNamespace(
        run=product("comfyui.upscale.run"),
        cache=product("comfyui.upscale.cache"),
        cascade=product("comfyui.upscale.cascade"),
        guidance=product("comfyui.upscale.guidance"),
        pixels=product("comfyui.vae.pixels"),
        progress=product("comfyui.upscale.progress"),
    )


@pytest.fixture
def stages(modules, monkeypatch):
    """What is kept of earlier runs: nothing yet."""
    fresh = modules.cache.StageCache()
    monkeypatch.setattr(modules.cascade, "STAGES", fresh)
    return fresh


@pytest.fixture
def upscale(demo, vae, node_classes, stages):
    """Run the node: ``upscale(image, size, **changes)`` gives its image and latent."""

    def run(image=None, size=256, **changes):
        inputs = dict(model=demo.model, vae=vae, positive=demo.prompt, negative=demo.prompt)
        inputs |= DEFAULTS | dict(image=image, size=size) | changes
        with torch.inference_mode():
            output = node_classes["CLEARUpscale"].execute(**inputs)
        return output.args

    return run


@pytest.fixture
def steps(monkeypatch):
    """The moves of the progress bar, as (steps so far, of how many), one list for all stages.

    Newer hosts tell the page only some of those that follow in a hurry.
    """
    import comfy.utils

    moves: list[tuple[int, int]] = []

    def noted(bar, value, total=None, preview=None):
        moves.append((value, bar.total))

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", noted)
    return moves


@pytest.fixture
def upscaling(caplog):
    """The cascade's lines in the log."""
    caplog.set_level(logging.INFO)
    start = "CLEAR Upscale: "
    return lambda: [
        r.getMessage()[len(start) :] for r in caplog.records if r.getMessage().startswith(start)
    ]


def run_node(node, **inputs):
    """Run a node of the host, written the old way or the new one, and return its outputs."""
    with torch.inference_mode():
        if hasattr(node, "define_schema"):
            return node.execute(**inputs).args
        return getattr(node(), node.FUNCTION)(**inputs)


def resized(image, width, height):
    """Enlarge as the host's ImageScale does."""
    import comfy.utils

    return comfy.utils.common_upscale(
        image.movedim(-1, 1), width, height, "lanczos", "center"
    ).movedim(1, -1)


def noisy(height, width, seed=0):
    """Draw a picture with details of every size."""
    generator = torch.Generator().manual_seed(seed)
    return (picture(height, width) + 0.2 * torch.randn(1, height, width, 3, generator=generator)
            ).clamp(0, 1)  # fmt: skip


def low_frequencies(image, cells=8):
    return torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), cells)


def ran(lines):
    """Return the stages that were painted and those that were kept, by their numbers."""
    found = [line.split(",") for line in lines if line.startswith("stage ")]
    numbers = {kept: [int(line[0].split()[1]) for line in found if ("kept" in line[-1]) == kept]
               for kept in (False, True)}  # fmt: skip
    return numbers[False], numbers[True]
