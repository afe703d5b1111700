"""A CLEAR file for the demo model, in the form of the published ones, so that loading one is shown.

It is not distilled: every tensor is the base model's with a little seeded noise.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .painter import paint_weights
from .sizes import config_of

NAME = "clear_demo_local_8.safetensors"
RADIUS = 8
NOISE = 0.003  # against the spread of each tensor

MODELS = Path(__file__).resolve().parents[1] / "models"


def base_weights() -> dict[str, Tensor]:
    """Read the trained model in ``demo/models`` if there is one, else make the one set by hand.

    The names are FLUX's own.
    """
    files = [
        file for file in sorted(MODELS.glob("*.safetensors")) if not file.name.startswith("clear")
    ]
    return load_file(files[0]) if files else paint_weights()


def write_clear_file(base_directory: Path) -> Path:
    """Put the demo's CLEAR file into a ComfyUI base directory and return where it is.

    A distilled one from ``demo/models`` is preferred; without one the base model is disturbed.
    """
    # Imported here: inside ComfyUI, where the model is loaded, the pack has another name.
    from clear_attention.weights import checkpoint

    folder = base_directory / "models" / "clear"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / NAME
    if (MODELS / NAME).exists():
        part = folder / f"{NAME}.part"
        shutil.copyfile(MODELS / NAME, part)
        part.replace(target)
    else:
        tensors = dict(clear_weights(base_weights()))
        checkpoint.save(target, tensors, radius=RADIUS, pool_factor=0, base="CLEAR demo")
    return target


def clear_weights(base: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that CLEAR trains, under their published names, in bfloat16."""
    from clear_attention.weights.flux import FLUX
    from clear_attention.weights.table import Size

    config = config_of(base)
    blocks = {"double": config["depth"], "single": config["depth_single_blocks"]}
    draw = torch.Generator().manual_seed(8)
    for name, tensor in FLUX.from_host(base, Size(config["hidden_size"], blocks, 0)).items():
        noise = torch.randn(tensor.shape, generator=draw)
        yield name, (tensor + NOISE * tensor.std() * noise).bfloat16().contiguous()
