"""The host's tiled VAE decode with its tiles dealt to several devices: the same picture.

The host's own functions cut, decode and blend. Only the decoder that they call is another one: it
has the tiles that the host is about to ask for decoded ahead, by copies of the VAE.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from .copies import COPIES
from .deal import Deal, Decoder
from .threads import Crew

logger = logging.getLogger(__name__)

Tiling = tuple[Sequence[int], Any]
"""Sides of a tile and its overlap, as the host's tiled_scale_multidim takes them."""


def decode_in_tiles(
    vae: Any,
    samples: Mapping[str, Any],
    devices: Sequence[torch.device],
    tile_size: int = 512,
    overlap: int = 64,
) -> Tensor:
    """Return the picture of the host's VAE Decode (Tiled), ``[B, H, W, 3]``.

    Args:
        vae: The host's VAE, left as it is.
        samples: A LATENT.
        devices: That share the tiles; the first is replaced by the VAE's own. One alone decodes
            as the host does.
        tile_size: Edge of a tile in pixels.
        overlap: Of adjacent tiles, in pixels.

    Raises:
        ValueError: The latent is none of pictures, or there is too little memory for a copy.
    """
    shape = list(samples["samples"].shape)
    if len(shape) not in (4, 5):
        raise ValueError(f"samples must be pictures, [batch, channels, height, width], got {shape}")
    # By its name: a plain import would be read as the pack's own nodes.
    node = importlib.import_module("nodes").VAEDecodeTiled()
    devices = [vae.device, *devices[1:]]
    why = _why_one_device(vae, devices)
    if why is not None:
        logger.info("CLEAR Parallel Decode: one device decodes everything: %s", why)
        return node.decode(vae, samples, tile_size, overlap)[0]
    crew = Crew(devices)
    try:
        return node.decode(_dealing(vae, devices, crew), samples, tile_size, overlap)[0]
    finally:
        crew.stop()


def _why_one_device(vae: Any, devices: Sequence[torch.device]) -> str | None:
    if len(devices) < 2:
        return "there is one device"
    if vae.patcher.model is not vae.first_stage_model:
        return "another node has put a network of its own into this VAE"
    return None


def _dealing(vae: Any, devices: list[torch.device], crew: Crew) -> Any:
    """Return a VAE whose tiled decode deals the tiles; anything else is the given one's."""
    dealing = copy.copy(vae)
    for name, tilings in TILINGS.items():
        setattr(dealing, name, _dealt(vae, name, tilings, devices, crew))
    return dealing


def _dealt(
    vae: Any,
    name: str,
    tilings: Callable[[Mapping[str, Any]], list[Tiling]],
    devices: list[torch.device],
    crew: Crew,
) -> Callable[..., Tensor]:
    """Return the host's method of that name, for tiles that are decoded ahead."""
    cpu = torch.device("cpu")
    signature = inspect.signature(getattr(vae, name))

    def method(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # Latents are small, and main memory reaches every device.
        bound.arguments["samples"] = bound.arguments["samples"].to(cpu)
        tiles = tiles_of(bound.arguments["samples"], tilings(bound.arguments))
        decoders = _loaded(vae, devices, max(tiles, key=Tensor.numel))
        with Deal([tile.to(vae.vae_dtype) for tile in tiles], decoders, crew) as deal:
            called = copy.copy(vae)
            called.first_stage_model, called.device = deal, cpu
            picture = getattr(called, name)(*bound.args, **bound.kwargs)
        logger.info("CLEAR Parallel Decode: %s", deal.describe())
        return picture

    return method


def _loaded(vae: Any, devices: list[torch.device], tile: Tensor) -> list[Decoder]:
    """Return the VAE's network on each device, with room for a tile."""
    patchers = [vae.patcher, *COPIES.of(vae.patcher, devices[1:])]
    comfy.model_management.load_models_gpu(
        patchers,
        memory_required=vae.memory_used_decode(tile.shape, vae.vae_dtype),
        force_full_load=vae.disable_offload,
    )
    return [Decoder(one.model, device) for one, device in zip(patchers, devices, strict=True)]


def tiles_of(samples: Tensor, tilings: Sequence[Tiling]) -> list[Tensor]:
    """Return the tiles of latents in the order in which the host decodes them.

    Args:
        samples: ``[B, C, ..., height, width]``.
        tilings: One after another.
    """
    tiles: list[Tensor] = []

    def note(tile: Tensor) -> Tensor:
        tiles.append(tile)
        return torch.empty((1, 1, *tile.shape[2:]), device="meta")

    for sides, overlap in tilings:
        comfy.utils.tiled_scale_multidim(
            samples,
            note,
            tile=tuple(sides),
            overlap=overlap,
            upscale_amount=1,
            out_channels=1,
            output_device="meta",
        )
    return tiles


def _of_pictures(arguments: Mapping[str, Any]) -> list[Tiling]:
    """The host decodes pictures three times, and averages: in high, in wide, in square tiles."""
    x, y, overlap = (arguments[name] for name in ("tile_x", "tile_y", "overlap"))
    return [((y * 2, x // 2), overlap), ((y // 2, x * 2), overlap), ((y, x), overlap)]


def _of_frames(arguments: Mapping[str, Any]) -> list[Tiling]:
    sides = [arguments[name] for name in ("tile_t", "tile_x", "tile_y")]
    return [(sides, arguments["overlap"])]


TILINGS = {"decode_tiled_": _of_pictures, "decode_tiled_3d": _of_frames}
"""Method of the host's VAE -> its tilings. One that is missed costs time, not the picture."""
