"""The host's Chroma."""

from __future__ import annotations

from ...families.chroma import CHROMA as DATA
from ..families import flux
from .embedder import Embedder
from .family import HostFamily, of_class

CHROMA = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.chroma.model", "Chroma"),
    blocks=flux.FLUX.blocks,
    dimensions=flux.dimensions,
    embedder=Embedder("pe_embedder", axes=(1, 2)),  # its ids come from within its forward
    by_length=True,
    patch_path="patch_size",
    cut=flux.CUT,
    runner="forward_orig",
    names_blocks_since=(0, 3, 75),
)
