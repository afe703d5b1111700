"""The host's Kandinsky 5."""

from __future__ import annotations

from ...families.kandinsky5 import KANDINSKY5 as DATA
from .family import HostBlocks, HostFamily, of_class

KANDINSKY5 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.kandinsky5.model", "Kandinsky5"),
    blocks=(
        HostBlocks(
            "self", "visual_transformer_blocks", block="TransformerDecoderBlock", calls=("self",)
        ),
    ),
)
