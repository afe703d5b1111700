"""JoyImage: one kind of block, the image in front of references and text."""

from __future__ import annotations

from .family import IMAGE_FIRST, AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="joy_image",
    title="JoyImage",
    kinds=(
        attention(
            *("joint", "double_blocks.{}.attn", (*["img_attn_qkv"] * 3, "img_attn_proj")),
            own_widths=True,
        ),
    ),
)

JOY_IMAGE = Family(
    key="joy_image",
    title="JoyImage",
    models="JoyImage",
    kinds=(AttentionKind("joint"),),
    order=IMAGE_FIRST,
    names=NAMES,
)
