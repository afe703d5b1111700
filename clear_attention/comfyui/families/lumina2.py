"""The host's Lumina2, Neta and NewBie."""

from __future__ import annotations

from ...families.lumina2 import LUMINA2 as DATA
from .family import HostBlocks, HostFamily, of_class

LUMINA2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.lumina.model", "NextDiT"),
    blocks=(
        HostBlocks("refiner", "noise_refiner", block="JointTransformerBlock"),
        HostBlocks("joint", "layers", block="JointTransformerBlock"),
    ),
    patch_path="patch_size",
)
