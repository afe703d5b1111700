"""The host's Mage-Flow."""

from __future__ import annotations

from ...families.mage_flow import MAGE_FLOW as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

MAGE_FLOW = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.mage_flow.model", "MageFlowTransformer2DModel"),
    blocks=(
        HostBlocks(
            "joint",
            "transformer_blocks",
            block="QwenImageTransformerBlock",
            feed_forward=("img_mlp", "txt_mlp"),
        ),
    ),
    embedder=Embedder("pe_embedder", axes=(1, 2), exact=True),
    references="ref_latents",
    layers=Layers(text=("txt_", "add_"), image=("img_in", "proj_out")),
)
