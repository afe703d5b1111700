"""Lumina2, Neta and NewBie: refiners of the image, then blocks of text and image."""

from __future__ import annotations

from .family import AttentionKind, Family

LUMINA2 = Family(
    key="lumina2",
    title="Lumina2",
    kinds=(AttentionKind("refiner", image_only=True), AttentionKind("joint")),
)
