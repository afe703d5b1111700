"""One progress bar over all stages of a cascade, with previews that stay small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

from ...sampling.pyramid import Stage

PREVIEW_LATENT = 128
"""Longer side of a latent that is decoded for a preview: a whole one of 8K would not fit."""

Callback = Callable[[int, Tensor, Tensor, int], None]


class CascadeProgress:
    """The node's progress bar: a step counts by its pixels, encoding and decoding as one step."""

    def __init__(self, model: ModelPatcher, stages: Sequence[Stage]) -> None:
        smallest = min(stage.width * stage.height for stage in stages)
        self._units = [round(stage.width * stage.height / smallest) for stage in stages]
        self._totals = [
            (stage.kept + 2) * units for stage, units in zip(stages, self._units, strict=True)
        ]
        self._bar = comfy.utils.ProgressBar(sum(self._totals))
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def encoded(self, index: int) -> None:
        """Say that a stage's picture is encoded."""
        self._move(sum(self._totals[:index]) + self._units[index])

    def finished(self, index: int) -> None:
        """Say that a stage and those before it are done."""
        self._move(sum(self._totals[: index + 1]))

    def sampling(self, index: int, steps: int) -> Callback:
        """Return the callback for the host's sampler, with a number of steps."""
        start = sum(self._totals[:index]) + self._units[index]

        def callback(step: int, denoised: Tensor, *_: Any) -> None:
            self._move(start + min(step + 1, steps) * self._units[index], self._preview(denoised))

        return callback

    def _preview(self, denoised: Tensor) -> Any:
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

    def _move(self, value: int, preview: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(value, preview=preview)
