"""Qwen-Image 2.1: text and references in causal order, the image behind, which sees all of them."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import HOST_PREFIX, NameTable
from .projections import attention

NAMES = NameTable(
    family="qwen_image21",
    title="Qwen-Image 2.1",
    kinds=(attention("joint", "transformer_blocks.{}.attn", biased=()),),
    lora_prefix=HOST_PREFIX,
)

QWEN_IMAGE21 = Family(
    key="qwen_image21",
    title="Qwen-Image 2.1",
    models="Qwen-Image 2.1, -Turbo",
    kinds=(AttentionKind("joint"),),
    names=NAMES,
    order=("text", "references", "image", "padding"),
    cached="text",
    patch=1,
    latent_px=16,
)
