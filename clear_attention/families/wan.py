"""Wan 2.1 and 2.2: the image attends to itself, then to the text; one frame is a picture."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family

WAN = Family(
    key="wan",
    title="Wan",
    models="Wan 2.1 and 2.2 14B text to video, one frame",
    kinds=(AttentionKind("self", image_only=True),),
    order=IMAGE_FIRST,
)
