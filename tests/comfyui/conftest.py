"""The ComfyUI under test, and the tiny FLUX models of the golden cases inside it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .chroma_fixtures import chroma_model
from .controlnet_fixtures import make_control_net, residuals
from .distil_fixtures import short_generation, teacher
from .flux2_fixtures import flux2_model, flux2_vae
from .hosts import HOST, ROOT
from .low_memory_fixtures import lengths
from .pack_fixtures import (
    clear_folder,
    models_of_other_tests,
    node_classes,
    nodes,
    pack,
    product,
    run,
    undrawn,
)
from .sampling_fixtures import controlled, lines, sample
from .sd3_fixtures import sd3_clear, sd3_files, sd3_folders, sd3_model
from .upscale_fixtures import demo, modules, stages, steps, upscale, upscaling
from .vae_fixtures import vae
from .weights_fixtures import clear, weights
from .zoo_fixtures import zoo_model

# A model of the golden cases -> what distinguishes it; the manifest describes the rest.
FLUX_MODELS: dict[str, dict[str, Any]] = {
    "a": dict(hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, guidance_embed=True),
    "b": dict(hidden_size=128, num_heads=1, depth=2, depth_single_blocks=3, guidance_embed=False),
}

if (HOST / "comfy").is_dir():
    # In front of the repository, whose `nodes` would hide the host's.
    sys.path.insert(0, str(HOST))
    from comfy.cli_args import args

    args.cpu = True  # read when comfy.model_management is imported


@pytest.fixture(scope="session")
def host() -> Path:
    """The folder of the ComfyUI under test; its packages can be imported, on the CPU."""
    if not (HOST / "comfy").is_dir():
        pytest.skip(f"needs a ComfyUI: {HOST} has none, set COMFYUI_HOST to its folder")
    return HOST


@pytest.fixture(scope="session")
def flux_weights(host: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """The golden models' weights by the host's names, in float32."""
    loaded = {
        name: load_file(ROOT / "tests" / "golden" / f"base_{name}_bfl.safetensors")
        for name in FLUX_MODELS
    }
    return lambda name: {key: tensor.float() for key, tensor in loaded[name].items()}


@pytest.fixture(scope="session")
def flux_model(host: Path, flux_weights: Any) -> Callable[..., Any]:
    """Make a fresh MODEL of the golden cases: ``flux_model("a")``, ``flux_model("b", torch.half)``.

    The host's loader knows no narrow FLUX before 0.12, so that the model is built from its classes.
    """
    import comfy.ldm.flux.model
    import comfy.model_patcher
    import comfy.supported_models

    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    shared = dict(
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

    def make(name: str, dtype: torch.dtype = torch.float32) -> Any:
        sizes = {**shared, **FLUX_MODELS[name]}
        family = "Flux" if sizes["guidance_embed"] else "FluxSchnell"
        config = getattr(comfy.supported_models, family)(
            {"image_model": "flux", **{key: sizes[key] for key in sizes.keys() & known}}
        )
        config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
        model = config.get_model({})
        # Newer hosts have other names for the norms.
        state = config.process_unet_state_dict(flux_weights(name))
        model.diffusion_model.load_state_dict(state)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    return make
