"""The host's Qwen-Image 2.1."""

from __future__ import annotations

from ...families.qwen_image21 import QWEN_IMAGE21 as DATA
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

QWEN_IMAGE21 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.qwen_image21.model", "QwenImage21Transformer2DModel"),
    blocks=(
        # Its blocks are given the options within their attention, but the host names them.
        HostBlocks(
            "joint",
            "transformer_blocks",
            told_as="single",
            block="QwenImage21TransformerBlock",
            feed_forward=("img_mlp",),
        ),
    ),
    references="ref_latents",
    sees_all=True,
    layers=Layers(text=("txt_in",), image=("img_in", "proj_out")),
)
