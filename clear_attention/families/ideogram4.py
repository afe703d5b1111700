"""Ideogram 4: one kind of block, text in front, a latent pixel of 16 pixels for a token."""

from __future__ import annotations

from .family import AttentionKind, Family

IDEOGRAM4 = Family(
    key="ideogram4",
    title="Ideogram 4",
    kinds=(AttentionKind("joint"),),
    patch=1,
    latent_px=16,
)
