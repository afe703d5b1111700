"""Kandinsky 5: the image attends to itself, then to the text."""

from __future__ import annotations

from .family import AttentionKind, Family

KANDINSKY5 = Family(
    key="kandinsky5",
    title="Kandinsky 5",
    kinds=(AttentionKind("self", image_only=True),),
)
