"""Cosmos Predict2 and Anima: the image attends to itself, then to the text."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import HOST_PREFIX, NameTable
from .projections import attention

NAMES = NameTable(
    family="cosmos_predict2",
    title="Cosmos Predict2",
    kinds=(
        attention(
            *("self", "blocks.{}.self_attn", ("q_proj", "k_proj", "v_proj", "output_proj")),
            biased=(),
        ),
    ),
    lora_prefix=HOST_PREFIX,
)

COSMOS_PREDICT2 = Family(
    key="cosmos_predict2",
    title="Cosmos Predict2",
    models="Cosmos Predict2 text to image, Anima",
    kinds=(AttentionKind("self", image_only=True),),
    names=NAMES,
)
