"""HiDream-O1: a language model that paints pixels, whose text comes from a cache later on."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import HOST_PREFIX, NameTable
from .projections import grouped

NAMES = NameTable(
    family="hidream_o1",
    title="HiDream-O1",
    kinds=(
        grouped(
            "joint",
            "language_model.layers.{}.self_attn",
            ("q_proj", "k_proj", "v_proj", "o_proj"),
        ),
    ),
    lora_prefix=HOST_PREFIX,
)

HIDREAM_O1 = Family(
    key="hidream_o1",
    title="HiDream-O1",
    models="HiDream-O1",
    kinds=(AttentionKind("joint"),),
    cached="text",
    patch=32,
    latent_px=1,
    names=NAMES,
)
