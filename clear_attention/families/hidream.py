"""HiDream-I1: FLUX-like blocks, the image in front of the text."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="hidream",
    title="HiDream-I1",
    kinds=tuple(
        attention(
            kind, f"{kind}_stream_blocks.{{}}.block.attn1", ("to_q", "to_k", "to_v", "to_out")
        )
        for kind in ("double", "single")
    ),
)

HIDREAM = Family(
    key="hidream",
    title="HiDream-I1",
    models="HiDream-I1 full, dev, fast; E1 in full",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    order=IMAGE_FIRST,
    names=NAMES,
)
