"""Lens: one kind of block, the image in front of the text, a latent pixel for a token."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family

LENS = Family(
    key="lens",
    title="Lens",
    kinds=(AttentionKind("joint"),),
    order=IMAGE_FIRST,
    patch=1,
    latent_px=16,
)
