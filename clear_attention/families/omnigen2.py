"""OmniGen2: refiners of the image, then blocks of text, references and image; grouped heads."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import HOST_PREFIX, NameTable
from .projections import grouped

NAMES = NameTable(
    family="omnigen2",
    title="OmniGen2",
    kinds=(grouped("refiner", "noise_refiner.{}.attn"), grouped("joint", "layers.{}.attn")),
    lora_prefix=HOST_PREFIX,
)

OMNIGEN2 = Family(
    key="omnigen2",
    title="OmniGen2",
    models="OmniGen2",
    head_dim=120,
    kinds=(AttentionKind("refiner", image_only=True), AttentionKind("joint")),
    names=NAMES,
)
