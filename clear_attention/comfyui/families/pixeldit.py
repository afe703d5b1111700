"""The host's PixelDiT and PiD."""

from __future__ import annotations

from ...families.pixeldit import PIXELDIT as DATA
from .family import HostBlocks, HostFamily, of_class

PIXELDIT = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.pixeldit.model", "PixDiT_T2I"),
    blocks=(
        HostBlocks("joint", "patch_blocks", block="MMDiTBlockT2I"),
        HostBlocks("pixel", "pixel_blocks", block="PiTBlock"),
    ),
)
