"""Krea 2: one kind of block, text in front, grouped heads."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import grouped

NAMES = NameTable(
    family="krea2",
    title="Krea 2",
    kinds=(
        grouped(
            *("joint", "blocks.{}.attn", ("wq", "wk", "wv", "wo")),
            file="transformer_blocks.{}.attn",
        ),
    ),
)

KREA2 = Family(
    key="krea2",
    title="Krea 2",
    models="Krea 2, Krea 2 Turbo",
    kinds=(AttentionKind("joint"),),
    names=NAMES,
)
