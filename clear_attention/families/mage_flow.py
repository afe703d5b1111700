"""Mage-Flow: Qwen-Image's blocks, a latent pixel of 16 pixels for a token."""

from __future__ import annotations

from dataclasses import replace

from ..families import qwen_image
from .family import AttentionKind, Family

NAMES = replace(qwen_image.NAMES, family="mage_flow", title="Mage-Flow")

MAGE_FLOW = Family(
    key="mage_flow",
    title="Mage-Flow",
    models="Mage-Flow",
    kinds=(AttentionKind("joint"),),
    patch=1,
    latent_px=16,
    names=NAMES,
)
