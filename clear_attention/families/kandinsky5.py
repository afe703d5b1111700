"""Kandinsky 5: the image attends to itself, then to the text."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="kandinsky5",
    title="Kandinsky 5",
    kinds=(
        attention(
            "self",
            "visual_transformer_blocks.{}.self_attention",
            ("to_query", "to_key", "to_value", "out_layer"),
        ),
    ),
)

KANDINSKY5 = Family(
    key="kandinsky5",
    title="Kandinsky 5",
    models="Kandinsky 5 image; its video models with one frame",
    kinds=(AttentionKind("self", image_only=True),),
    names=NAMES,
)
