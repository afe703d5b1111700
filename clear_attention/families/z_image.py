"""Z-Image: Lumina2's blocks, an image that is filled up to a multiple of 32 tokens."""

from __future__ import annotations

from dataclasses import replace

from ..families import lumina2
from .names import HOST_PREFIX, NameTable
from .projections import QKV, attention

NAMES = NameTable(
    family="z_image",
    title="Z-Image",
    kinds=tuple(
        attention(kind, path, (*QKV, "out"), file=path, biased=())
        for kind, path in (
            ("refiner", "noise_refiner.{}.attention"),
            ("joint", "layers.{}.attention"),
        )
    ),
    lora_prefix=HOST_PREFIX,  # which older hosts know, too
)

Z_IMAGE = replace(
    lumina2.LUMINA2,
    key="z_image",
    title="Z-Image",
    models="Z-Image, Z-Image-Turbo, Z-Image omni",
    head_dim=128,
    pads_to=32,
    names=NAMES,
)
