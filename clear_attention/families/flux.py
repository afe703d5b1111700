"""FLUX.1: its kinds of blocks, the published checkpoints' names (those of diffusers)."""

from __future__ import annotations

from ..families import network
from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, attention

NAMES = NameTable(
    family="flux",
    title="FLUX.1",
    kinds=(
        attention(
            "double", "double_blocks.{}.img_attn", (*QKV, "proj"), file="transformer_blocks.{}.attn"
        ),
        # linear1 is q, k, v and the MLP's input; the MLP's rows, from the third part on, stay.
        attention(
            "single", "single_blocks.{}", ["linear1"] * 3, file="single_transformer_blocks.{}.attn"
        ),
    ),
    published=True,
)

FLUX = Family(
    key=NAMES.family,
    title="FLUX",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    positions="rotary",
    network=network.flux,
    names=NAMES,
)
