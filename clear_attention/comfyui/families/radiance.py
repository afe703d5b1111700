"""The host's Chroma Radiance."""

from __future__ import annotations

from dataclasses import replace

from ...families.radiance import RADIANCE as DATA
from ..families import chroma
from .family import of_class

RADIANCE = replace(
    chroma.CHROMA,
    data=DATA,
    matches=of_class("comfy.ldm.chroma_radiance.model", "ChromaRadiance"),
    by_length=False,
)
