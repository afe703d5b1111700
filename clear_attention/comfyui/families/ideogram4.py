"""The host's Ideogram 4."""

from __future__ import annotations

from ...families.ideogram4 import IDEOGRAM4 as DATA
from .family import HostBlocks, HostFamily, of_class

IDEOGRAM4 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.ideogram4.model", "Ideogram4Transformer"),
    blocks=(HostBlocks("joint", "layers", block="Ideogram4TransformerBlock"),),
)
