"""Qwen-Image, -Edit and -Layered: one kind of block, text in front."""

from __future__ import annotations

from .family import AttentionKind, Family

QWEN_IMAGE = Family(
    key="qwen_image",
    title="Qwen-Image",
    kinds=(AttentionKind("joint"),),
)
