"""SD3 and SD3.5: their kinds of blocks, a checkpoint's names (those of diffusers)."""

from __future__ import annotations

from ..families import network
from .family import AttentionKind, Family
from .names import BlockKind, Layer, NameTable


def _kind(name: str, attention: str, optional: bool = False) -> BlockKind:
    """Return the names of one attention that every joint block, or the first ones, have."""
    file, host = f"transformer_blocks.{{}}.{attention}", f"joint_blocks.{{}}.x_block.{attention}"
    return BlockKind(
        name=name,
        layers=(
            Layer(f"{file}.to_q", f"{host}.qkv", 0),
            Layer(f"{file}.to_k", f"{host}.qkv", 1),
            Layer(f"{file}.to_v", f"{host}.qkv", 2),
            Layer(f"{file}.to_out.0", f"{host}.proj", 0),
        ),
        pooling=f"{file}.processor.spatial_weight",
        optional=optional,
    )


NAMES = NameTable(
    family="sd3",
    title="SD3",
    kinds=(
        _kind("joint", "attn"),
        # The first blocks of SD3.5 medium attend a second time, among image tokens alone. A
        # checkpoint may leave that attention's weights as the base has them.
        _kind("image", "attn2", optional=True),
    ),
    width_per_block=64,  # as many blocks as heads, each head 64 wide
)

SD3 = Family(
    key=NAMES.family,
    title="SD3",
    kinds=(AttentionKind("joint"), AttentionKind("image", inside="joint")),
    positions="table",
    network=network.sd3,
    names=NAMES,
)
