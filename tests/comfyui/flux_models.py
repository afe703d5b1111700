"""The narrow FLUX models of the golden cases, made of the host's classes.

The host's loader knows no narrow FLUX before 0.12.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

# A model of the golden cases -> what distinguishes it; the manifest describes the rest.
FLUX_MODELS: dict[str, dict[str, Any]] = {
    "a": dict(hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, guidance_embed=True),
    "b": dict(hidden_size=128, num_heads=1, depth=2, depth_single_blocks=3, guidance_embed=False),
}
SHARED = dict(
    in_channels=16,
    out_channels=16,
    vec_in_dim=32,
    context_in_dim=64,
    mlp_ratio=4.0,
    axes_dim=[16, 56, 56],
    theta=10000,
    patch_size=2,
    qkv_bias=True,
    txt_ids_dims=[],
)


def flux_weights(name: str) -> dict[str, torch.Tensor]:
    """Return a golden model's weights by the host's names, in float32."""
    loaded = load_file(GOLDEN / f"base_{name}_bfl.safetensors")
    return {key: tensor.float() for key, tensor in loaded.items()}


def make_flux(
    name: str, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32
) -> Any:
    """Return a fresh MODEL of a golden case on the CPU."""
    import comfy.ldm.flux.model
    import comfy.model_patcher
    import comfy.supported_models

    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    sizes = {**SHARED, **FLUX_MODELS[name]}
    family = "Flux" if sizes["guidance_embed"] else "FluxSchnell"
    config = getattr(comfy.supported_models, family)(
        {"image_model": "flux", **{key: sizes[key] for key in sizes.keys() & known}}
    )
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    model = config.get_model({})
    # Newer hosts have other names for the norms.
    state = config.process_unet_state_dict(weights)
    model.diffusion_model.load_state_dict(state)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
