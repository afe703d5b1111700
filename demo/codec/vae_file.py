"""The demo's VAE as a file that ComfyUI's own loader reads: TAESD's two networks and a scale."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clear_attention.atomic_files import written_whole
from demo.codec.encoder import encoder_by_hand
from demo.codec.latents import FLUX_SHIFT

NAME = "clear_demo_vae.safetensors"
DECODER = Path(__file__).resolve().parents[1] / "models" / "clear_demo_decoder.safetensors"

# ComfyUI gives the decoder (latents - shift) * scale. A third of FLUX's own scale, so that the
# decoder's first layer, which bends what is larger than 3, leaves strong edges as they are; and a
# power of two, which bfloat16 holds exactly.
SCALE, SHIFT = 0.125, FLUX_SHIFT


def write_vae_file(base_directory: Path) -> Path:
    """Put the demo's VAE into a ComfyUI base directory and return where it is."""
    folder = base_directory / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / NAME) as part:
        save_file(vae_weights(), part)
    return folder / NAME


def vae_weights() -> dict[str, Tensor]:
    """Return both networks under the names that ComfyUI knows them by, in float32."""
    encoder = encoder_by_hand(SCALE, SHIFT).state_dict()
    return {
        **{f"taesd_encoder.{name}": weight for name, weight in encoder.items()},
        **{f"taesd_decoder.{name}": weight.float() for name, weight in load_file(DECODER).items()},
        "vae_scale": torch.tensor(SCALE),
        "vae_shift": torch.tensor(SHIFT),
    }
