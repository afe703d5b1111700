"""A model with full attention or CLEAR, called as the host's sampler calls it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from benchmarks.gpu.measure import seconds_of
from benchmarks.gpu.model import SIGMA

if TYPE_CHECKING:
    from clear_attention.comfyui.core.report import RunReport


@dataclass(frozen=True)
class Variant:
    """One way to run the model's attention: full without a radius, else CLEAR.

    Attributes:
        radius: Of the window, or None.
        backend: "auto" or a name.
    """

    radius: int | None = None
    backend: str = "auto"

    @property
    def name(self) -> str:
        """What the table calls it."""
        return "full" if self.radius is None else f"CLEAR, r = {self.radius}"

    def apply(self, model: Any) -> Any:
        """Return a MODEL that runs so."""
        from clear_attention.comfyui.core.patch import with_window
        from clear_attention.comfyui.core.settings import WindowSettings

        if self.radius is None:
            return model
        return with_window(model, WindowSettings(self.radius, backend=self.backend))


FULL = Variant()


class Step(Protocol):
    """One step of the sampler."""

    def __call__(self, inputs: dict[str, Tensor], report: RunReport | None = None) -> Tensor:
        """Return the denoised latent; the report is told what computed the attention."""
        ...


@contextmanager
def ready(model: Any) -> Generator[Step]:
    """Patch a MODEL as the host does for a sampling run, and give its step."""
    from clear_attention.comfyui.core.patch import REPORT_KEY

    def step(inputs: dict[str, Tensor], report: RunReport | None = None) -> Tensor:
        options = dict(model.model_options.get("transformer_options", {}))
        if report is not None:
            options[REPORT_KEY] = report
        with torch.inference_mode():
            return model.model.apply_model(**inputs, transformer_options=options)

    model.patch_model(load_weights=False)  # they are where they belong
    try:
        yield step
    finally:
        model.unpatch_model(unpatch_weights=False)


def first_call(
    step: Step, inputs: dict[str, Tensor], device: torch.device
) -> tuple[Tensor, str, float]:
    """Return the velocity, what computed the attention, and the seconds of the first call."""
    from clear_attention.comfyui.core.report import RunReport

    report = RunReport()
    kept: list[Tensor] = []
    seconds = seconds_of(lambda: kept.append(step(inputs, report)), device)
    # A full run reports nothing: our override is not in it.
    ran = {path.why or path.backend for path in report.calls} or {_host_attention()}
    return velocity(kept[0], inputs), ", ".join(sorted(ran)), seconds


def velocity(denoised: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Return what the network itself predicts."""
    return (inputs["x"] - denoised.float()) / SIGMA


def _host_attention() -> str:
    """Name the attention that the host has chosen for this machine."""
    from comfy.ldm.modules.attention import optimized_attention

    return getattr(optimized_attention, "__name__", "the host's")
