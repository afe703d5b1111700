"""The host's Ideogram 4."""

from __future__ import annotations

from ...families.ideogram4 import IDEOGRAM4 as DATA
from ...families.network import Held
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

IDEOGRAM4 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.ideogram4.model", "Ideogram4Transformer"),
    blocks=(
        HostBlocks(
            "joint",
            "layers",
            block="Ideogram4TransformerBlock",
            feed_forward=("feed_forward",),
            held=Held(attention=8, inside=4),
        ),
    ),
    layers=Layers(text=("llm_cond_proj",), both=("input_proj", "final_layer.linear")),
    theta="rope_theta",
)
