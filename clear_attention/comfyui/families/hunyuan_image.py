"""The host's Hunyuan Image 2.1: the class of Hunyuan Video without the axis of time."""

from __future__ import annotations

from typing import Any

from ...families.family import IMAGE_FIRST
from ...families.hunyuan_image import HUNYUAN_IMAGE as DATA
from ..slicing import hunyuan as slicing
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import MODULATION, Layers

is_hunyuan = of_class("comfy.ldm.hunyuan_video.model", "HunyuanVideo")


def _matches(model: Any) -> bool:
    return is_hunyuan(model) and len(model.patch_size) == 2


HUNYUAN_IMAGE = HostFamily(
    data=DATA,
    matches=_matches,
    blocks=(
        HostBlocks(
            "double",
            "double_blocks",
            block="DoubleStreamBlock",
            feed_forward=("img_mlp", "txt_mlp"),
        ),
        HostBlocks(
            "single", "single_blocks", "single_block", slicing.SINGLE, block="SingleStreamBlock"
        ),
    ),
    embedder=Embedder("pe_embedder", axes=(0, 1)),  # its ids come from within its forward
    older=((0, 13), IMAGE_FIRST),
    patch_path="patch_size",  # HunyuanVideo 1.5 has one latent pixel for a token, 1 has four
    layers=Layers(
        once=(*MODULATION, ".t_embedder", ".c_embedder"),
        text=("txt_",),
        image=("img_in.proj", "final_layer.linear"),
    ),
)
