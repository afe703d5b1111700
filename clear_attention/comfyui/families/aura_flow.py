"""The host's AuraFlow."""

from __future__ import annotations

from ...families.aura_flow import AURA_FLOW as DATA
from ...families.network import Held
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

AURA_FLOW = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.aura.mmdit", "MMDiT"),
    blocks=(
        HostBlocks(
            "double",
            "double_layers",
            block="MMDiTBlock",
            feed_forward=("mlpX", "mlpC"),
            held=Held(attention=8),
        ),
        HostBlocks(
            "single",
            "single_layers",
            block="DiTBlock",
            feed_forward=("mlp",),
            held=Held(attention=8),
        ),
    ),
    patch_path="patch_size",
    layers=Layers(
        text=("cond_seq_linear", "double_layers.attn.w1", "mlpC"),
        image=("init_x_linear", "final_linear"),
    ),
)
