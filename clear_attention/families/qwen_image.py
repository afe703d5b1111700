"""Qwen-Image, -Edit and -Layered: one kind of block, text in front."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="qwen_image",
    title="Qwen-Image",
    kinds=(attention("joint", "transformer_blocks.{}.attn"),),
)

QWEN_IMAGE = Family(
    key="qwen_image",
    title="Qwen-Image",
    models="Qwen-Image, -2512, -Edit, -Edit-2509, -Edit-2511; -Layered with one layer",
    kinds=(AttentionKind("joint"),),
    names=NAMES,
)
