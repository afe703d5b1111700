"""The host's Lens."""

from __future__ import annotations

from ...families.lens import LENS as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

LENS = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.lens.model", "LensTransformer2DModel"),
    blocks=(
        HostBlocks(
            "joint",
            "transformer_blocks",
            block="LensTransformerBlock",
            feed_forward=("img_mlp", "txt_mlp"),
        ),
    ),
    layers=Layers(text=("txt_", "to_add_out"), image=("img_in", "proj_out")),
    embedder=Embedder("pos_embed", axes=(1, 2), exact=True),
)
