"""The host's JoyImage."""

from __future__ import annotations

from ...families.joy_image import JOY_IMAGE as DATA
from ...families.network import Held
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

JOY_IMAGE = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.joyimage.model", "JoyImageTransformer3DModel"),
    blocks=(
        HostBlocks(
            "joint",
            "double_blocks",
            block="JoyImageTransformerBlock",
            feed_forward=("img_mlp", "txt_mlp"),
            held=Held(attention=11),
        ),
    ),
    layers=Layers(text=("txt_", "text_embedder"), image=("img_in", "proj_out")),
    theta="theta",
)
