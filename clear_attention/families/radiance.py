"""Chroma Radiance: Chroma's blocks on pixels, 16 x 16 of which are a token."""

from __future__ import annotations

from dataclasses import replace

from ..families import chroma, flux
from .network import transformer

NAMES = replace(flux.NAMES, family="radiance", title="Chroma Radiance", published=False)

RADIANCE = replace(
    chroma.CHROMA,
    key="radiance",
    title="Chroma Radiance",
    models="Chroma1-Radiance",
    network=transformer,
    names=NAMES,
    patch=16,
    latent_px=1,
)
