"""HiDream-I1: FLUX-like blocks, the image in front of the text."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family

HIDREAM = Family(
    key="hidream",
    title="HiDream-I1",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    order=IMAGE_FIRST,
)
