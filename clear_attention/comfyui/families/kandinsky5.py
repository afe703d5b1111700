"""The host's Kandinsky 5."""

from __future__ import annotations

from ...families.kandinsky5 import KANDINSKY5 as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

KANDINSKY5 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.kandinsky5.model", "Kandinsky5"),
    blocks=(
        HostBlocks(
            "self",
            "visual_transformer_blocks",
            block="TransformerDecoderBlock",
            feed_forward=("feed_forward",),
            calls=("self",),
        ),
    ),
    layers=Layers(
        text=(
            ".text_embeddings",
            "text_transformer_blocks",
            "cross_attention.to_key",
            "cross_attention.to_value",
        ),
        image=("visual_embeddings", "out_layer.out_layer"),
    ),
    embedder=Embedder("rope_embedder_3d", axes=(1, 2), process="rope_encode_3d"),
)
