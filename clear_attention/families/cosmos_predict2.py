"""Cosmos Predict2 and Anima: the image attends to itself, then to the text."""

from __future__ import annotations

from .family import AttentionKind, Family

COSMOS_PREDICT2 = Family(
    key="cosmos_predict2",
    title="Cosmos Predict2",
    kinds=(AttentionKind("self", image_only=True),),
)
