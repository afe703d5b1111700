"""The host's Chroma."""

from __future__ import annotations

import comfy.ldm.chroma.model
from torch import nn

from ...families.chroma import CHROMA as DATA
from ..families import flux
from .family import Embedder, HostFamily


def _matches(model: nn.Module) -> bool:
    """Return whether a model is Chroma: Radiance, which derives from it, has pixels for latents."""
    return isinstance(model, comfy.ldm.chroma.model.Chroma) and not hasattr(model, "nerf_blocks")


CHROMA = HostFamily(
    data=DATA,
    matches=_matches,
    blocks=flux.FLUX.blocks,
    dimensions=flux.dimensions,
    embedder=Embedder("pe_embedder", axes=(1, 2)),  # its ids come from within its forward
    runner="forward_orig",
    names_blocks_since=(0, 3, 75),
)
