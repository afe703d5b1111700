"""Fixtures: narrow models of the host's Chroma class, and what they are called with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from .controlnet_fixtures import fill

# A model -> what distinguishes it. The host reads 344 modulations, three for each single block.
CHROMA_MODELS: dict[str, dict[str, Any]] = {
    "chroma": dict(depth=2, depth_single_blocks=3),
    "one block": dict(depth=1, depth_single_blocks=0),
}
SHARED: dict[str, Any] = dict(
    in_channels=64,
    out_channels=64,
    in_dim=64,
    out_dim=128,
    hidden_dim=32,
    n_layers=2,
    hidden_size=128,
    num_heads=1,
    context_in_dim=64,
    mlp_ratio=2.0,
    axes_dim=[16, 56, 56],
    theta=10000,
    patch_size=2,
    qkv_bias=True,
)
TEXT_WIDTH = 64


@pytest.fixture(scope="session")
def chroma_model(host: Path) -> Callable[..., Any]:
    """Make a fresh MODEL: ``chroma_model("chroma")``, ``chroma_model("one block", torch.half)``."""
    import comfy.ldm.chroma.model
    import comfy.model_patcher
    import comfy.supported_models

    known = {field.name for field in dataclasses.fields(comfy.ldm.chroma.model.ChromaParams)}
    newer = dict(guidance_embed=False, vec_in_dim=None, txt_ids_dims=[])

    def make(name: str = "chroma", dtype: torch.dtype = torch.float32) -> Any:
        sizes = {**{key: newer[key] for key in newer.keys() & known}, **SHARED}
        config = comfy.supported_models.Chroma(
            {"image_model": "chroma", **sizes, **CHROMA_MODELS[name]}
        )
        config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
        model = config.get_model({})
        fill(model.diffusion_model, seed=11)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    return make


def inputs(
    height: int = 23, width: int = 18, text: int = 40, batch: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """Return the arguments of `run`; the latent is odd in height by default."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(batch, 16, height, width, generator=generator),
        "timestep": torch.linspace(0.9, 0.5, batch),
        "context": torch.randn(batch, text, TEXT_WIDTH, generator=generator),
        "guidance": torch.zeros(batch),
    }
