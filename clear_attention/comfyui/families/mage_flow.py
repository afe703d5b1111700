"""The host's Mage-Flow."""

from __future__ import annotations

from ...families.mage_flow import MAGE_FLOW as DATA
from .family import HostBlocks, HostFamily, of_class

MAGE_FLOW = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.mage_flow.model", "MageFlowTransformer2DModel"),
    blocks=(HostBlocks("joint", "transformer_blocks", block="QwenImageTransformerBlock"),),
    references="ref_latents",
)
