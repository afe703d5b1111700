"""Fixtures: narrow models of FLUX.2 in the host's class, and a VAE with latents of its shape."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .controlnet_fixtures import fill

# A model -> what distinguishes it: Klein has no guidance, dev has.
FLUX2_MODELS: dict[str, dict[str, Any]] = {
    "klein": dict(depth=1, depth_single_blocks=2, guidance_embed=False),
    "dev": dict(depth=1, depth_single_blocks=2, guidance_embed=True),
    "one block": dict(depth=1, depth_single_blocks=0, guidance_embed=False),
    "one single block": dict(depth=0, depth_single_blocks=1, guidance_embed=False),
}
# As the host reads them off a file of FLUX.2, but for the widths.
SHARED: dict[str, Any] = dict(
    in_channels=128,
    out_channels=128,
    vec_in_dim=None,
    context_in_dim=64,
    hidden_size=128,
    num_heads=1,
    mlp_ratio=3.0,
    axes_dim=[32, 32, 32, 32],
    theta=2000,
    patch_size=1,
    qkv_bias=False,
    global_modulation=True,
    mlp_silu_act=True,
    ops_bias=False,
    default_ref_method="index",
    ref_index_scale=10.0,
    txt_ids_dims=[3],
)
PADDED = 512
"""Tokens to which the host fills a shorter prompt, in front."""


@pytest.fixture(scope="session")
def flux2_model(host: Path) -> Callable[..., Any]:
    """Make a fresh MODEL: ``flux2_model("dev")``, ``flux2_model("one block", torch.half)``."""
    import comfy.ldm.flux.model
    import comfy.model_patcher
    import comfy.supported_models

    if not hasattr(comfy.supported_models, "Flux2"):
        pytest.skip("this ComfyUI has no FLUX.2: 0.3.75 does")
    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    shared = {key: SHARED[key] for key in SHARED.keys() & known}

    def make(name: str = "klein", dtype: torch.dtype = torch.float32) -> Any:
        config = comfy.supported_models.Flux2(
            {"image_model": "flux2", **shared, **FLUX2_MODELS[name]}
        )
        config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
        model = config.get_model({})
        fill(model.diffusion_model, seed=13)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    return make


class Folded(nn.Module):
    """A VAE with four latent pixels in one, as FLUX.2's, and channels without content."""

    def __init__(self, inner: Any, channels: int) -> None:
        super().__init__()
        self.inner = inner
        self.channels = channels

    def encode(self, picture: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(self.inner.encode(picture), 2)
        return F.pad(folded, (0, 0, 0, 0, 0, self.channels - folded.shape[1]))

    def decode(self, latent: Tensor) -> Tensor:
        return self.inner.decode(F.pixel_shuffle(latent[:, :64], 2))


@pytest.fixture
def flux2_vae(vae: Any) -> Any:
    """Make the demo's VAE one of 128 channels and 16 pixels to a latent pixel."""
    folded = copy.copy(vae)
    folded.first_stage_model = Folded(vae.first_stage_model, channels=128)
    folded.latent_channels = 128
    folded.downscale_ratio = folded.upscale_ratio = 16
    return folded


def inputs(
    height: int = 13, width: int = 9, text: int = 40, batch: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """Return the arguments of `run`; a latent pixel is a token."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(batch, 128, height, width, generator=generator),
        "timestep": torch.linspace(0.9, 0.5, batch),
        "context": torch.randn(batch, text, 64, generator=generator),
        "guidance": torch.full((batch,), 3.5),
    }
