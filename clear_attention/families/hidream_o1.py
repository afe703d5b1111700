"""HiDream-O1: a language model that paints pixels, whose text comes from a cache later on."""

from __future__ import annotations

from .family import AttentionKind, Family

HIDREAM_O1 = Family(
    key="hidream_o1",
    title="HiDream-O1",
    kinds=(AttentionKind("joint"),),
    cached="text",
    patch=32,
    latent_px=1,
)
