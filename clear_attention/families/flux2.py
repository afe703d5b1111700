"""FLUX.2: FLUX's kinds of blocks with gated MLPs, tokens of one latent pixel of 16 pixels."""

from __future__ import annotations

from dataclasses import replace

from ..families import flux
from .names import NameTable

NAMES = NameTable(family="flux2", title="FLUX.2", kinds=flux.kinds(biased=()))

FLUX2 = replace(
    flux.FLUX,
    key="flux2",
    title="FLUX.2",
    models="FLUX.2 dev, Klein 4B and 9B",
    names=NAMES,
    patch=1,
    latent_px=16,
)
