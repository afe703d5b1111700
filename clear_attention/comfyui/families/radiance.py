"""The host's Chroma Radiance."""

from __future__ import annotations

from dataclasses import replace

from ...families.radiance import RADIANCE as DATA
from ..families import chroma
from .family import of_class
from .layers import Layers, pixels

# What the last layers multiply pixels with are not weights, but made from a token: under 1 %.
LAYERS = Layers(
    text=("txt_",),
    image=("img_in_patch", "nerf_"),
    repeats=dict.fromkeys(("nerf_image_embedder", "nerf_final_layer"), pixels),
)

RADIANCE = replace(
    chroma.CHROMA,
    data=DATA,
    matches=of_class("comfy.ldm.chroma_radiance.model", "ChromaRadiance"),
    dimensions=None,
    layers=LAYERS,
    by_length=False,
    cut=None,
)
