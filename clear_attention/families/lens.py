"""Lens: one kind of block, the image in front of the text, a latent pixel for a token."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="lens",
    title="Lens",
    kinds=(attention("joint", "transformer_blocks.{}.attn", (*["img_qkv"] * 3, "to_out.0")),),
)

LENS = Family(
    key="lens",
    title="Lens",
    models="Lens",
    head_dim=64,
    kinds=(AttentionKind("joint"),),
    order=IMAGE_FIRST,
    patch=1,
    latent_px=16,
    names=NAMES,
)
