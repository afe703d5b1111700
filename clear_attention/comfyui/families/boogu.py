"""The host's Boogu."""

from __future__ import annotations

from ...families.boogu import BOOGU as DATA
from ...families.network import Held
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

BOOGU = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.boogu.model", "BooguTransformer2DModel"),
    blocks=(
        HostBlocks(
            "refiner",
            "noise_refiner",
            block="OmniGen2TransformerBlock",
            feed_forward=("feed_forward",),
        ),
        HostBlocks(
            "double",
            "double_stream_layers",
            attends_twice=lambda block: True,
            block="BooguDoubleStreamBlock",
            feed_forward=("img_feed_forward", "instruct_feed_forward"),
            held=Held(attention=9, mlp=6),
            calls=("double", "image"),
        ),
        HostBlocks(
            "single",
            "single_stream_layers",
            block="OmniGen2TransformerBlock",
            feed_forward=("feed_forward",),
        ),
    ),
    layers=Layers(
        text=(
            "caption_embedder",
            "context_refiner",
            "instruct_to_",
            "instruct_out",
            "instruct_feed",
        ),
        both=("norm_out.linear_2", "instruct_attn.to_out"),
        image=(".x_embedder",),
    ),
    counts_by_mask=True,
    embedder=Embedder("rope_embedder.rope_embedder", axes=(1, 2), exact=True),
)
