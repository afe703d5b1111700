"""Lumina2, Neta and NewBie: refiners of the image, then blocks of text and image."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, grouped

NAMES = NameTable(
    family="lumina2",
    title="Lumina2",
    kinds=tuple(
        grouped(kind, f"{path}.attention", (*QKV, "out"), file=f"{path}.attn")
        for kind, path in (("refiner", "noise_refiner.{}"), ("joint", "layers.{}"))
    ),
)

LUMINA2 = Family(
    key="lumina2",
    title="Lumina2",
    models="Lumina-Image 2.0, Neta Lumina, NewBie",
    head_dim=96,
    kinds=(AttentionKind("refiner", image_only=True), AttentionKind("joint")),
    names=NAMES,
)
