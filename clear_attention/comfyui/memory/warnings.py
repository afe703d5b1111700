"""What will run out of memory around the sampling: previews and the VAE."""

from __future__ import annotations

from collections.abc import Sequence

import folder_paths
from comfy import model_management
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_patcher import ModelPatcher

from ...families.family import Family
from ...units import GIB
from ..families import require_family

TAESD_BYTES_PER_PIXEL = 4 * 64 * 4
"""Four tensors of 64 channels in float32; the host's decoder was measured at 1017 on a CPU."""

BYTES_PER_VAE_VALUE = 2
"""VAEs usually compute in bfloat16. How many values a pixel needs is the host's own figure."""


def preview_bytes(family: Family, noise_shape: Sequence[int]) -> int:
    """Return what a TAESD preview needs; it decodes the first picture whole."""
    return _pixels(family, noise_shape) * TAESD_BYTES_PER_PIXEL


def decode_bytes(family: Family, noise_shape: Sequence[int]) -> int:
    """Return what VAE Decode needs for one picture."""
    return _pixels(family, noise_shape) * family.vae_values * BYTES_PER_VAE_VALUE


def warnings(model: ModelPatcher, noise_shape: Sequence[int]) -> list[str]:
    """Return a sentence for each thing that would run out of memory at this size.

    Args:
        model: The MODEL, loaded: a preview has to do with what it leaves free.
        noise_shape: Of the latents.
    """
    found: list[str] = []
    family = require_family(model).data
    height, width = (size * family.latent_px for size in noise_shape[-2:])
    device = model.load_device
    free = int(model_management.get_free_memory(device))
    if _previews_decode(model) and preview_bytes(family, noise_shape) > free:
        found.append(
            f"a TAESD preview of {width} x {height} pixels needs about "
            f"{preview_bytes(family, noise_shape) / GIB:.0f} GiB, {free / GIB:.0f} GiB are free: "
            "set the preview method to latent2rgb or none"
        )
    vae = model_management.vae_device()
    total = int(model_management.get_total_memory(vae))
    if decode_bytes(family, noise_shape) > total:
        found.append(
            f"VAE Decode of {width} x {height} pixels needs about "
            f"{decode_bytes(family, noise_shape) / GIB:.0f} GiB by ComfyUI's own figure, there are "
            f"{total / GIB:.0f} GiB: use VAE Decode (Tiled)"
        )
    return found


def _previews_decode(model: ModelPatcher) -> bool:
    """Tell whether previews are on that run a decoder, and the host has it."""
    name = model.model.latent_format.taesd_decoder_name
    if args.preview_method != LatentPreviewMethod.TAESD or name is None:
        return False
    return any(file.startswith(name) for file in folder_paths.get_filename_list("vae_approx"))


def _pixels(family: Family, noise_shape: Sequence[int]) -> int:
    return noise_shape[-2] * noise_shape[-1] * family.latent_px**2
