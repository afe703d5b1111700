"""The host's HiDream-I1."""

from __future__ import annotations

from ...families.hidream import HIDREAM as DATA
from .family import HostBlocks, HostFamily, of_class

HIDREAM = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.hidream.model", "HiDreamImageTransformer2DModel"),
    blocks=(
        HostBlocks("double", "double_stream_blocks", block="HiDreamImageBlock"),
        HostBlocks("single", "single_stream_blocks", block="HiDreamImageBlock"),
    ),
    declines={
        "image_cond": "HiDream-E1 sets its reference picture beside each row of the grid, which "
        "CLEAR's window cannot tell apart"
    },
)
