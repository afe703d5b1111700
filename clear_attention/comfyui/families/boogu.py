"""The host's Boogu."""

from __future__ import annotations

from ...families.boogu import BOOGU as DATA
from .family import HostBlocks, HostFamily, of_class

BOOGU = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.boogu.model", "BooguTransformer2DModel"),
    blocks=(
        HostBlocks("refiner", "noise_refiner", block="OmniGen2TransformerBlock"),
        HostBlocks(
            "double",
            "double_stream_layers",
            attends_twice=lambda block: True,
            block="BooguDoubleStreamBlock",
            calls=("double", "image"),
        ),
        HostBlocks("single", "single_stream_layers", block="OmniGen2TransformerBlock"),
    ),
    counts_by_mask=True,
)
