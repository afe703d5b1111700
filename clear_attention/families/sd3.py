"""SD3 and SD3.5: their kinds of blocks, a checkpoint's names (those of diffusers)."""

from __future__ import annotations

from ..families import network
from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, attention

_LAYERS = (*QKV, "proj")

NAMES = NameTable(
    family="sd3",
    title="SD3",
    kinds=(
        attention(
            "joint", "joint_blocks.{}.x_block.attn", _LAYERS, file="transformer_blocks.{}.attn"
        ),
        # The first blocks of SD3.5 medium attend a second time, among image tokens alone. A
        # checkpoint may leave that attention's weights as the base has them.
        attention(
            "image",
            "joint_blocks.{}.x_block.attn2",
            _LAYERS,
            file="transformer_blocks.{}.attn2",
            optional=True,
        ),
    ),
    width_per_block=64,  # as many blocks as heads, each head 64 wide
    published=True,
)

SD3 = Family(
    key=NAMES.family,
    title="SD3",
    models="SD3 medium; SD3.5 medium, large, turbo",
    head_dim=64,
    kinds=(AttentionKind("joint"), AttentionKind("image", inside="joint")),
    positions="table",
    network=network.sd3,
    names=NAMES,
)
