"""The host's JoyImage."""

from __future__ import annotations

from ...families.joy_image import JOY_IMAGE as DATA
from .family import HostBlocks, HostFamily, of_class

JOY_IMAGE = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.joyimage.model", "JoyImageTransformer3DModel"),
    blocks=(HostBlocks("joint", "double_blocks", block="JoyImageTransformerBlock"),),
)
