"""One progress bar over all stages of a cascade, with previews that stay small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...sampling.pyramid import Stage
from ..core.previews import Previews

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
        self._previews = Previews(model)

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
            self._move(
                start + min(step + 1, steps) * self._units[index], self._previews.of(denoised)
            )

        return callback

    def _move(self, value: int, preview: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(value, preview=preview)
