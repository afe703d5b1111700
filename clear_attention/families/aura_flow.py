"""AuraFlow: FLUX-like blocks, registers and text in front, a learned table of positions."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import attention

NAMES = NameTable(
    family="aura_flow",
    title="AuraFlow",
    kinds=(
        attention(
            *("double", "double_layers.{}.attn", ("w2q", "w2k", "w2v", "w2o")),
            file="joint_transformer_blocks.{}.attn",
            biased=(),
        ),
        attention(
            *("single", "single_layers.{}.attn", ("w1q", "w1k", "w1v", "w1o")),
            file="single_transformer_blocks.{}.attn",
            biased=(),
        ),
    ),
)

AURA_FLOW = Family(
    key="aura_flow",
    title="AuraFlow",
    models="AuraFlow, Pony V7",
    head_dim=256,
    kinds=(AttentionKind("double"), AttentionKind("single")),
    positions="table",
    names=NAMES,
)
