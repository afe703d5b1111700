"""The host's PixelDiT and PiD."""

from __future__ import annotations

from ...families.network import Held
from ...families.pixeldit import PIXELDIT as DATA
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers, pixels

PIXELDIT = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.pixeldit.model", "PixDiT_T2I"),
    blocks=(
        HostBlocks("joint", "patch_blocks", block="MMDiTBlockT2I", feed_forward=("mlp_x", "mlp_y")),
        HostBlocks(
            "pixel", "pixel_blocks", block="PiTBlock", feed_forward=("mlp",), held=Held(attention=9)
        ),
    ),
    layers=Layers(
        once=("patch_blocks.adaLN_modulation",),
        text=("y_embedder", "_y."),
        image=("s_embedder", "pixel_embedder", "final_layer.linear"),
        repeats=dict.fromkeys(("pixel_embedder", "pixel_blocks.mlp", "final_layer"), pixels),
    ),
)
