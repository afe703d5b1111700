"""OmniGen2: refiners of the image, then blocks of text, references and image; grouped heads."""

from __future__ import annotations

from .family import AttentionKind, Family

OMNIGEN2 = Family(
    key="omnigen2",
    title="OmniGen2",
    kinds=(AttentionKind("refiner", image_only=True), AttentionKind("joint")),
)
