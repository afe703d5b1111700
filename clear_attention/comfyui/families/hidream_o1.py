"""The host's HiDream-O1."""

from __future__ import annotations

from ...families.hidream_o1 import HIDREAM_O1 as DATA
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

HIDREAM_O1 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.hidream_o1.model", "HiDreamO1Transformer"),
    blocks=(
        # Its blocks take no options, but the host names them.
        HostBlocks("joint", "language_model.layers", told_as="double", feed_forward=("mlp",)),
    ),
    references="ref_patches",
    forgets="clear_kv_cache",  # keys and values of the prompt
    layers=Layers(image=("x_embedder", "final_layer2")),
)
