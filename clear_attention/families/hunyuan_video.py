"""Hunyuan Video: FLUX-like blocks, an axis of time, of which one frame is a picture."""

from __future__ import annotations

from dataclasses import replace

from ..families import hunyuan_image

HUNYUAN_VIDEO = replace(
    hunyuan_image.HUNYUAN_IMAGE,
    key="hunyuan_video",
    title="Hunyuan Video",
    models="HunyuanVideo 1 and 1.5, one frame",
    names=None,
    patch=2,
    latent_px=8,
)
