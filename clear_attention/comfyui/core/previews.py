"""Previews while a sampler runs, that stay small."""

from __future__ import annotations

from typing import Any

import latent_preview
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

PREVIEW_LATENT = 128
"""Longer side of a latent that is decoded for a preview: a whole one of 8K would not fit."""


class Previews:
    """What a sampler has reached, as the host shows it."""

    def __init__(self, model: ModelPatcher) -> None:
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def of(self, denoised: Tensor) -> Any:
        """Return the preview of a latent for the host's progress bar; None where it has none."""
        if self._previewer is None:
            return None
        longer = max(denoised.shape[-2:])
        if longer > PREVIEW_LATENT:
            size = [max(1, side * PREVIEW_LATENT // longer) for side in denoised.shape[-2:]]
            first = denoised[:1]
            flat = first.reshape(-1, *first.shape[-3:])
            denoised = functional.interpolate(flat, size=size, mode="area").reshape(
                *first.shape[:-2], *size
            )
        return self._previewer.decode_latent_to_preview_image("JPEG", denoised)
