"""The host's Qwen-Image, -Edit and -Layered."""

from __future__ import annotations

from ...families.qwen_image import QWEN_IMAGE as DATA
from .cut import Cut
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

QWEN_IMAGE = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.qwen_image.model", "QwenImageTransformer2DModel"),
    blocks=(
        HostBlocks(
            "joint",
            "transformer_blocks",
            block="QwenImageTransformerBlock",
            feed_forward=("img_mlp", "txt_mlp"),
        ),
    ),
    embedder=Embedder("pe_embedder", axes=(1, 2), process="process_img", frames=True),
    references="ref_latents",
    cut=Cut(
        joined="proj_out",
        outputs={"img_in": 1, "pe_embedder": 2},
        places=("timestep_zero_index",),
    ),
    layers=Layers(text=("txt_", "add_"), image=("img_in", "proj_out")),
)
