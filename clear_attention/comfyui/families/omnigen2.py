"""The host's OmniGen2."""

from __future__ import annotations

from ...families.network import Held
from ...families.omnigen2 import OMNIGEN2 as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

OMNIGEN2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.omnigen.omnigen2", "OmniGen2Transformer2DModel"),
    blocks=(
        HostBlocks(
            "refiner",
            "noise_refiner",
            block="OmniGen2TransformerBlock",
            feed_forward=("feed_forward",),
            held=Held(inside=4),
        ),
        HostBlocks(
            "joint",
            "layers",
            block="OmniGen2TransformerBlock",
            feed_forward=("feed_forward",),
            held=Held(inside=4),
        ),
    ),
    layers=Layers(
        text=("caption_embedder", "context_refiner"),
        both=("norm_out.linear_2",),
        image=(".x_embedder",),
    ),
    counts_by_mask=True,
    embedder=Embedder("rope_embedder.rope_embedder", axes=(1, 2), exact=True),
)
