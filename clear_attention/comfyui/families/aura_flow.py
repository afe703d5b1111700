"""The host's AuraFlow."""

from __future__ import annotations

from ...families.aura_flow import AURA_FLOW as DATA
from .family import HostBlocks, HostFamily, of_class

AURA_FLOW = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.aura.mmdit", "MMDiT"),
    blocks=(
        HostBlocks("double", "double_layers", block="MMDiTBlock"),
        HostBlocks("single", "single_layers", block="DiTBlock"),
    ),
    patch_path="patch_size",
)
