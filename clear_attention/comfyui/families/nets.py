"""Networks beside a model that attend to its picture: ControlNets with blocks of their own."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..families import lumina2, qwen_image, z_image
from .family import HostBlocks, HostFamily, of_class
from .modules import plain_module

QWEN_FUN = replace(
    qwen_image.QWEN_IMAGE,
    matches=of_class("comfy.ldm.qwen_image.controlnet", "QwenImageFunControlNetModel"),
    blocks=(HostBlocks("joint", "control_blocks", block="QwenImageTransformerBlock"),),
)

# Its tokens are the grid's alone: neither text nor what fills the image up.
Z_IMAGE_FUN = replace(
    z_image.Z_IMAGE,
    data=replace(z_image.DATA, pads_to=1),
    matches=of_class("comfy.ldm.lumina.controlnet", "ZImage_Control"),
    blocks=tuple(
        replace(blocks, path=path)
        for blocks, path in zip(
            lumina2.LUMINA2.blocks, ("control_noise_refiner", "control_layers"), strict=True
        )
    ),
    patch_path="",
)

NETS: tuple[HostFamily, ...] = (QWEN_FUN, Z_IMAGE_FUN)
"""Besides those that derive from their model's class, and are of its family."""


def net_of(network: nn.Module) -> HostFamily | None:
    """Return the family of a network of `NETS`, compiled or not, or None."""
    plain = plain_module(network)
    return next((net for net in NETS if net.matches(plain)), None)
