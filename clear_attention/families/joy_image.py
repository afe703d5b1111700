"""JoyImage: one kind of block, the image in front of references and text."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family

JOY_IMAGE = Family(
    key="joy_image",
    title="JoyImage",
    kinds=(AttentionKind("joint"),),
    order=IMAGE_FIRST,
)
