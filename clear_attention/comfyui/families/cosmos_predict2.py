"""The host's Cosmos Predict2 and Anima."""

from __future__ import annotations

from ...families.cosmos_predict2 import COSMOS_PREDICT2 as DATA
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers

COSMOS_PREDICT2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.cosmos.predict2", "MiniTrainDIT"),
    blocks=(HostBlocks("self", "blocks", block="Block", feed_forward=("mlp",), calls=("self",)),),
    layers=Layers(
        text=(".blocks.cross_attn.k_proj", ".blocks.cross_attn.v_proj"),
        image=("x_embedder", "final_layer.linear"),
    ),
    embedder=Embedder(
        "pos_embedder",
        axes=(1, 2),
        exact=True,
        by_ids=False,
        base=("h_ntk_factor", "w_ntk_factor", "t_ntk_factor"),
    ),
)
