"""The host's OmniGen2."""

from __future__ import annotations

from ...families.omnigen2 import OMNIGEN2 as DATA
from .family import HostBlocks, HostFamily, of_class

OMNIGEN2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.omnigen.omnigen2", "OmniGen2Transformer2DModel"),
    blocks=(
        HostBlocks("refiner", "noise_refiner", block="OmniGen2TransformerBlock"),
        HostBlocks("joint", "layers", block="OmniGen2TransformerBlock"),
    ),
    counts_by_mask=True,
)
