"""Pictures to latents and back, and from one size to another, of any size: in tiles where large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

TILE_STEP = 64  # so that tiles and their overlaps are of whole latent pixels


def resize(image: Tensor, width: int, height: int, upscale_model: Any = None) -> Tensor:
    """Resize a picture by Lanczos, after an upscale model if there is one.

    What the rounding of the sides takes from the aspect ratio is cut off, as the host cuts
    ControlNets' pictures.

    Args:
        image: ``[B, H, W, 3]``, 0 to 1.
        width: In pixels.
        height: In pixels.
        upscale_model: The host's UPSCALE_MODEL, or None.

    Returns:
        ``[B, height, width, 3]``; the picture itself if it has that size already.
    """
    if tuple(image.shape[1:3]) == (height, width):
        return image
    if upscale_model is not None:
        # Imported here: it needs spandrel, and nothing else of the pack does.
        from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

        image = ImageUpscaleWithModel().upscale(upscale_model, image)[0]
    resized = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "lanczos", "center")
    return resized.movedim(1, -1)


def encode(vae: Any, image: Tensor, tile: int) -> Tensor:
    """Return the latent of a picture, ``[B, C, height, width]``; VAEs for videos add a frame.

    Args:
        vae: The host's VAE.
        image: ``[B, H, W, 3]``, sides of whole latent pixels.
        tile: Edge of a tile in pixels; 0 for the whole picture at once.
    """
    if not _fits(image.shape[1:3], tile):
        latent = _in_tiles(
            image.movedim(-1, 1),
            lambda part: _without_frame(_encode(vae, part.movedim(1, -1))),
            _edge(tile),
            1 / vae.spacial_compression_encode(),
            vae.latent_channels,
        )
        return latent.unsqueeze(2) if _is_for_videos(vae) else latent
    return _encode(vae, image)


def decode(vae: Any, latent: Tensor, tile: int) -> Tensor:
    """Return the picture of a latent, ``[B, H, W, 3]``; see `encode`."""
    compression = vae.spacial_compression_decode()
    if _fits([side * compression for side in latent.shape[-2:]], tile):
        return _decode(vae, latent)
    tiles = _in_tiles(
        _without_frame(latent),
        lambda part: _decode(vae, part).movedim(-1, 1),
        _edge(tile) // compression,
        compression,
        3,
    )
    return tiles.movedim(1, -1)


def _encode(vae: Any, image: Tensor) -> Tensor:
    """Encode each picture by itself where the host would take several for frames of a video."""
    if not _is_for_videos(vae):
        return vae.encode(image)
    return torch.cat([vae.encode(one) for one in image.split(1)])


def _decode(vae: Any, latent: Tensor) -> Tensor:
    """Decode pictures, whose latents may have a frame, or lack the one that the VAE asks for."""
    latent = _without_frame(latent)
    if not _is_for_videos(vae):
        return vae.decode(latent)
    return torch.cat([vae.decode(one)[:, 0] for one in latent.unsqueeze(2).split(1)])


def _is_for_videos(vae: Any) -> bool:
    return getattr(vae, "latent_dim", 2) == 3


def _without_frame(latent: Tensor) -> Tensor:
    """Return ``[B, C, height, width]`` of a latent whose frames, if it has any, are one."""
    return latent.squeeze(2) if latent.ndim == 5 else latent


def _fits(sides_px: Sequence[int], tile: int) -> bool:
    return tile == 0 or max(sides_px) <= _edge(tile)


def _edge(tile: int) -> int:
    return max(2 * TILE_STEP, tile // TILE_STEP * TILE_STEP)


def _in_tiles(
    samples: Tensor, function: Callable[[Tensor], Tensor], tile: int, scale: float, channels: int
) -> Tensor:
    """Run a function over tiles that overlap by a quarter, and blend them, as the host does.

    The VAE's own tiled methods ask for the memory of the whole picture, and move the node's
    progress bar.
    """

    def run(part: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return function(part)

    return comfy.utils.tiled_scale(
        samples,
        run,
        tile_x=tile,
        tile_y=tile,
        overlap=tile // 4,
        upscale_amount=scale,
        out_channels=channels,
        output_device=comfy.model_management.intermediate_device(),
    )
