"""The node's progress bar over all models of a comparison."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..core.previews import Previews


class CompareProgress:
    """One bar over all runs, which also stops them when the user asks for it."""

    def __init__(self, model: ModelPatcher, work: int) -> None:
        self._work = work
        self._bar = comfy.utils.ProgressBar(work)
        self._previews = Previews(model)

    def __call__(self, done: int, denoised: Tensor | None) -> Any:
        """Move the bar.

        Raises:
            InterruptProcessingException: The user stopped the run.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = None if denoised is None else self._previews.of(denoised)
        # Some samplers take more steps than asked for.
        self._bar.update_absolute(min(done, self._work), preview=preview)
