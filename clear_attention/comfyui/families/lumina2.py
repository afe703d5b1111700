"""The host's Lumina2, Neta and NewBie."""

from __future__ import annotations

from ...families.lumina2 import LUMINA2 as DATA
from ...families.network import Held
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

LUMINA2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.lumina.model", "NextDiT"),
    blocks=(
        HostBlocks(
            "refiner",
            "noise_refiner",
            block="JointTransformerBlock",
            feed_forward=("feed_forward",),
            held=Held(attention=7, inside=4),
        ),
        HostBlocks(
            "joint",
            "layers",
            block="JointTransformerBlock",
            feed_forward=("feed_forward",),
            held=Held(attention=7, inside=4),
        ),
    ),
    embedder=Embedder("rope_embedder", axes=(1, 2), exact=True),
    patch_path="patch_size",
    layers=Layers(
        text=("cap_embedder", "context_refiner"),
        both=("final_layer.linear",),
        image=("x_embedder",),
    ),
)
