"""Krea 2: one kind of block, text in front, grouped heads."""

from __future__ import annotations

from .family import AttentionKind, Family

KREA2 = Family(
    key="krea2",
    title="Krea 2",
    kinds=(AttentionKind("joint"),),
)
