"""Boogu: refiners of the image, blocks with a second attention among pictures, then joint ones."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import HOST_PREFIX, NameTable
from .projections import grouped

NAMES = NameTable(
    family="boogu",
    title="Boogu",
    kinds=(
        grouped("refiner", "noise_refiner.{}.attn"),
        grouped(
            "double",
            "double_stream_layers.{}.img_instruct_attn",
            [f"processor.img_{layer}" for layer in ("to_q", "to_k", "to_v", "out")],
        ),
        grouped("image", "double_stream_layers.{}.img_self_attn"),
        grouped("single", "single_stream_layers.{}.attn"),
    ),
    lora_prefix=HOST_PREFIX,
)

BOOGU = Family(
    key="boogu",
    title="Boogu",
    models="Boogu",
    head_dim=120,
    kinds=(
        AttentionKind("refiner", image_only=True),
        AttentionKind("double"),
        AttentionKind("image", inside="double"),
        AttentionKind("single"),
    ),
    names=NAMES,
)
