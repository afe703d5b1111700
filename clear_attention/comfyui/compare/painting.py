"""A picture by the host's own sampler, with the seconds and the pairs of attention that it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..core.benefit import Benefit
from ..core.patch import REPORT_KEY
from ..core.report import RunReport

WATCH_KEY = "clear_attention_compare"

OnStep = Callable[[Tensor], None]
"""Takes the denoised latent of each step."""


@dataclass(frozen=True, eq=False)
class Task:
    """What all models paint, and how: KSampler's inputs.

    Attributes:
        positive: CONDITIONING.
        negative: CONDITIONING.
        latent: ``[B, C, H, W]``, or with frames in front of H, in the model's number of channels.
        steps: Sampling steps.
        cfg: Classifier-free guidance.
        sampler: Its name.
        scheduler: Its name.
        mask: Where to paint, a LATENT's noise mask, or None.
        batch_index: A LATENT's, or None: which of a batch's noise each picture gets.
    """

    positive: Any
    negative: Any
    latent: Tensor
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    mask: Tensor | None = None
    batch_index: Any = None

    def noise(self, seed: int) -> Tensor:
        """Return the noise of a seed, as KSampler draws it."""
        return comfy.sample.prepare_noise(self.latent, seed, self.batch_index)


@dataclass(frozen=True, eq=False)
class Painted:
    """A finished picture.

    Attributes:
        latent: As a VAE takes it, float32.
        seconds: From the first call of the model to the end: loading and patching weights, which
            a run does before it, are left out.
        computed: Share of full attention's pairs that were computed; 1 without a CLEAR window.
        remarks: Why attention of a CLEAR window stayed full.
    """

    latent: Tensor
    seconds: float
    computed: float = 1.0
    remarks: tuple[str, ...] = ()


class Watch:
    """Follows one run of a model: when its first call begins, and what its report counts."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.report: RunReport | None = None

    def put_on(self, model: ModelPatcher) -> ModelPatcher:
        """Return a clone of a model that this watch follows."""

        def note_start(executor: Any, *args: Any, **kwargs: Any) -> Any:
            self.began = self.began or time.perf_counter()
            return executor(*args, **kwargs)

        def keep_report(executor: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return executor(*args, **kwargs)
            finally:
                options = executor.class_obj.model_options.get("transformer_options", {})
                self.report = options.get(REPORT_KEY)

        model = model.clone()
        for kind, wrapper in (
            (WrappersMP.APPLY_MODEL, note_start),
            (WrappersMP.OUTER_SAMPLE, keep_report),
        ):
            add_wrapper_with_key(
                kind, WATCH_KEY, wrapper, model.model_options, is_model_options=True
            )
        return model


def paint(model: ModelPatcher, task: Task, seed: int, on_step: OnStep) -> Painted:
    """Sample the pictures of a seed, as KSampler does.

    Args:
        model: A MODEL, left as it is.
        task: What to paint.
        seed: Of the noise.
        on_step: Follows the steps.
    """
    watch = Watch()
    samples = comfy.sample.sample(
        watch.put_on(model),
        task.noise(seed),
        task.steps,
        task.cfg,
        task.sampler,
        task.scheduler,
        task.positive,
        task.negative,
        task.latent,
        noise_mask=task.mask,
        callback=lambda step, denoised, *_: on_step(denoised),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    latent = samples.float().cpu()  # waits for the device
    seconds = 0.0 if watch.began is None else time.perf_counter() - watch.began
    if watch.report is None:
        return Painted(latent, seconds)
    return Painted(latent, seconds, computed_of(watch.report), remarks_of(watch.report))


def computed_of(report: RunReport) -> float:
    """Return the share of full attention's pairs that a run computed.

    Calls of the model that stayed full as a whole have no pairs in a report: each counts as many
    as the others have on average.
    """
    benefit = Benefit.of(report.calls)
    if not benefit.possible:
        return 1.0
    counted = max(1, report.model_calls - benefit.dense_calls)
    full = benefit.possible / counted * benefit.dense_calls
    return (benefit.computed + full) / (benefit.possible + full)


def remarks_of(report: RunReport) -> tuple[str, ...]:
    """Return why attention calls of a CLEAR window stayed full, and which blocks it missed."""
    stayed = [path.why for path in report.calls if path.backend == "dense" and path.why]
    return tuple(dict.fromkeys([*stayed, *report.missed]))
