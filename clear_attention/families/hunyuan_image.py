"""Hunyuan Image 2.1: FLUX-like blocks, a latent pixel of 32 pixels for a token."""

from __future__ import annotations

from dataclasses import replace

from ..families import flux
from .family import AttentionKind, Family

NAMES = replace(flux.NAMES, family="hunyuan_image", title="Hunyuan Image 2.1", published=False)

HUNYUAN_IMAGE = Family(
    key="hunyuan_image",
    title="Hunyuan Image 2.1",
    models="HunyuanImage 2.1",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    patch=1,
    latent_px=32,
    names=NAMES,
)
