"""The ComfyUI under test, and the tiny FLUX models of the golden cases inside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .chroma_fixtures import chroma_model
from .controlnet_fixtures import make_control_net, residuals
from .distil_fixtures import short_generation, teacher
from .flux2_fixtures import flux2_model, flux2_vae
from .flux_models import FLUX_MODELS, make_flux
from .flux_models import flux_weights as golden_weights
from .hosts import HOST
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
from .vae_fixtures import demo_vae, vae, video_vae
from .weights_fixtures import clear, weights
from .zoo_fixtures import zoo_model

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
    loaded = {name: golden_weights(name) for name in FLUX_MODELS}
    return lambda name: dict(loaded[name])


@pytest.fixture(scope="session")
def flux_model(host: Path, flux_weights: Any) -> Callable[..., Any]:
    """Make a fresh MODEL of the golden cases: ``flux_model("a")``, or with a dtype behind it."""
    return lambda name, dtype=torch.float32: make_flux(name, flux_weights(name), dtype)
