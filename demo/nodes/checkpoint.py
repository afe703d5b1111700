"""A CLEAR file for the demo model, in the form of the published ones, so that loading one is shown.

It is not distilled: every tensor is the base model's with a little seeded noise.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
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
    folder = base_directory / "models" / "clear"
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / NAME, folder / f"{NAME}.part"
    if (MODELS / NAME).exists():
        shutil.copyfile(MODELS / NAME, part)
    else:
        metadata = {
            "clear.radius": str(RADIUS),
            "clear.pool_factor": "0",
            "clear.base": "CLEAR demo",
        }
        save_file(dict(clear_weights(base_weights())), part, metadata)
    part.replace(target)
    return target


def clear_weights(base: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that CLEAR trains, under their published names, in bfloat16."""
    draw = torch.Generator().manual_seed(8)
    for name, tensor in trained_parts(base):
        noise = torch.randn(tensor.shape, generator=draw)
        yield name, (tensor + NOISE * tensor.std() * noise).bfloat16().contiguous()


def trained_parts(base: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Cut queries, keys, values and image outputs from the fused weights."""
    config = config_of(base)
    hidden = config["hidden_size"]
    for block in range(config["depth"]):
        ours, theirs = f"double_blocks.{block}.img_attn", f"transformer_blocks.{block}.attn"
        yield from fused_parts(base, f"{ours}.qkv", theirs, hidden)
        for kind in ("weight", "bias"):
            yield f"{theirs}.to_out.0.{kind}", base[f"{ours}.proj.{kind}"]
    for block in range(config["depth_single_blocks"]):
        theirs = f"single_transformer_blocks.{block}.attn"
        yield from fused_parts(base, f"single_blocks.{block}.linear1", theirs, hidden)


def fused_parts(
    base: dict[str, Tensor], layer: str, attention: str, hidden: int
) -> Iterator[tuple[str, Tensor]]:
    """Cut queries, keys and values from the first rows of one layer."""
    for part, letter in enumerate("qkv"):
        for kind in ("weight", "bias"):
            rows = base[f"{layer}.{kind}"][part * hidden : (part + 1) * hidden]
            yield f"{attention}.to_{letter}.{kind}", rows
