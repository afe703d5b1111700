"""The host's Hunyuan Image 2.1: the class of Hunyuan Video without the axis of time."""

from __future__ import annotations

from typing import Any

from ...families.family import IMAGE_FIRST
from ...families.hunyuan_image import HUNYUAN_IMAGE as DATA
from .family import HostBlocks, HostFamily, of_class

is_hunyuan = of_class("comfy.ldm.hunyuan_video.model", "HunyuanVideo")


def _matches(model: Any) -> bool:
    return is_hunyuan(model) and len(model.patch_size) == 2


HUNYUAN_IMAGE = HostFamily(
    data=DATA,
    matches=_matches,
    blocks=(
        HostBlocks("double", "double_blocks", block="DoubleStreamBlock"),
        HostBlocks("single", "single_blocks", block="SingleStreamBlock"),
    ),
    older=((0, 13), IMAGE_FIRST),
)
