"""Ideogram 4: one kind of block, text in front, a latent pixel of 16 pixels for a token."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, attention

NAMES = NameTable(
    family="ideogram4",
    title="Ideogram 4",
    kinds=(attention("joint", "layers.{}.attention", (*QKV, "o"), biased=()),),
)

IDEOGRAM4 = Family(
    key="ideogram4",
    title="Ideogram 4",
    models="Ideogram 4",
    head_dim=256,
    kinds=(AttentionKind("joint"),),
    patch=1,
    latent_px=16,
    names=NAMES,
)
