"""The host's HiDream-I1."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ...families.hidream import HIDREAM as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers


def _active_experts(model: Any) -> Fraction:
    """Return which share of its experts a token passes through."""
    moe = model.double_stream_blocks[0].block.ff_i
    return Fraction(moe.num_activated_experts, len(moe.experts))


HIDREAM = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.hidream.model", "HiDreamImageTransformer2DModel"),
    blocks=(
        HostBlocks(
            "double",
            "double_stream_blocks",
            block="HiDreamImageBlock",
            feed_forward=("block.ff_i", "block.ff_t"),
        ),
        HostBlocks(
            "single",
            "single_stream_blocks",
            block="HiDreamImageBlock",
            feed_forward=("block.ff_i",),
        ),
    ),
    embedder=Embedder("pe_embedder", axes=(1, 2), exact=True),
    declines={
        "image_cond": "HiDream-E1 sets its reference picture beside each row of the grid, which "
        "CLEAR's window cannot tell apart"
    },
    layers=Layers(
        text=("_t.", "caption_projection"),
        image=("x_embedder", "final_layer.linear"),
        repeats={".experts.": _active_experts, "caption_projection": lambda model: Fraction(1, 3)},
    ),
)
