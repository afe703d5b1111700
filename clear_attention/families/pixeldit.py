"""PixelDiT: blocks of text and image on patches of pixels, then blocks of the image alone."""

from __future__ import annotations

from .family import AttentionKind, Family
from .names import NameTable
from .projections import QKV, attention

NAMES = NameTable(
    family="pixeldit",
    title="PixelDiT",
    kinds=(
        attention(
            *("joint", "patch_blocks.{}.attn", (*["qkv_x"] * 3, "proj_x")), biased=("to_out.0",)
        ),
        attention(
            *("pixel", "pixel_blocks.{}.attn", (*QKV, "proj")),
            biased=("to_out.0",),
            own_widths=True,
        ),
    ),
)

PIXELDIT = Family(
    key="pixeldit",
    title="PixelDiT",
    models="PixelDiT, PiD",
    head_dim=64,
    kinds=(AttentionKind("joint"), AttentionKind("pixel", image_only=True)),
    patch=16,
    latent_px=1,
    names=NAMES,
)
