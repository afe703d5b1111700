"""FLUX.1: its kinds of blocks, the published checkpoints' names (those of diffusers)."""

from __future__ import annotations

from collections.abc import Collection

from ..families import network
from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, ROLES, BlockKind, Role, attention


def kinds(biased: Collection[Role] = ROLES) -> tuple[BlockKind, ...]:
    """Return the names of FLUX's attentions, with biases or without."""
    double = attention(
        *("double", "double_blocks.{}.img_attn", (*QKV, "proj")),
        file="transformer_blocks.{}.attn",
        biased=biased,
    )
    # linear1 is q, k, v and the MLP's input; the MLP's rows, from the third part on, stay.
    single = attention(
        *("single", "single_blocks.{}", ["linear1"] * 3),
        file="single_transformer_blocks.{}.attn",
        biased=biased,
    )
    return double, single


NAMES = NameTable(family="flux", title="FLUX.1", kinds=kinds(), published=True)

FLUX = Family(
    key=NAMES.family,
    title="FLUX",
    models="FLUX.1 dev, schnell, Krea, Kontext, Fill, Canny, Depth, Redux; Ovis-Image; LongCat",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    positions="rotary",
    network=network.flux,
    names=NAMES,
)
