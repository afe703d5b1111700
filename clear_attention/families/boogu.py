"""Boogu: refiners of the image, blocks with a second attention among pictures, then joint ones."""

from __future__ import annotations

from .family import AttentionKind, Family

BOOGU = Family(
    key="boogu",
    title="Boogu",
    kinds=(
        AttentionKind("refiner", image_only=True),
        AttentionKind("double"),
        AttentionKind("image", inside="double"),
        AttentionKind("single"),
    ),
)
