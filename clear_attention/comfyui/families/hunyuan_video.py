"""The host's Hunyuan Video, as far as it paints single pictures."""

from __future__ import annotations

from dataclasses import replace

from ...families.hunyuan_video import HUNYUAN_VIDEO as DATA
from ..families import hunyuan_image
from .embedder import Embedder
from .wan import FURTHER

HUNYUAN_VIDEO = replace(
    hunyuan_image.HUNYUAN_IMAGE,
    data=DATA,
    matches=hunyuan_image.is_hunyuan,
    declines={"ref_latent": FURTHER},
    embedder=Embedder("pe_embedder", axes=(1, 2)),  # behind the axis of time
)
