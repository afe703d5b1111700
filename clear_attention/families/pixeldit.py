"""PixelDiT: blocks of text and image on patches of pixels, then blocks of the image alone."""

from __future__ import annotations

from .family import AttentionKind, Family

PIXELDIT = Family(
    key="pixeldit",
    title="PixelDiT",
    kinds=(AttentionKind("joint"), AttentionKind("pixel", image_only=True)),
    patch=16,
    latent_px=1,
)
