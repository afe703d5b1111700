"""The host's Cosmos Predict2 and Anima."""

from __future__ import annotations

from ...families.cosmos_predict2 import COSMOS_PREDICT2 as DATA
from .family import HostBlocks, HostFamily, of_class

COSMOS_PREDICT2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.cosmos.predict2", "MiniTrainDIT"),
    blocks=(HostBlocks("self", "blocks", block="Block", calls=("self",)),),
)
