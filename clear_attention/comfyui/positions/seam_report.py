"""Report how a picture wraps around, call by call, and give its grid to our embedder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..core.geometry import Geometry
from ..core.override import ModelCall
from ..core.report import RunReport
from ..core.settings import Settings
from ..families.family import Family, family_of, plain_module
from .periodic import PeriodicEmbedder


def follow_call(call: ModelCall, latent: Tensor, diffusion_model: Any) -> None:
    """Give our embedder the grid of a model call, and report how its picture wraps around."""
    family = family_of(diffusion_model)
    if call.report is not None and family is not None:
        report_seams(call.report, call.settings, diffusion_model, family, latent, call.geometry)
    set_grid(diffusion_model, call.geometry)


def set_grid(diffusion_model: Any, geometry: Geometry) -> None:
    """Tell the positional embedder, if it is ours, the grid of the model call that begins.

    It is not taken back at the end: parts of a batch may run side by side on one embedder.
    """
    embedder = _embedder(diffusion_model)
    if embedder is not None:
        embedder.geometry = geometry


def report_seams(
    report: RunReport,
    settings: Settings,
    diffusion_model: Any,
    family: Family,
    latent: Tensor,
    geometry: Geometry,
) -> None:
    """Report how a picture wraps around, and what stands against it.

    Args:
        report: Of the run.
        settings: What the nodes ask for.
        diffusion_model: That runs, compiled or not.
        family: Of it.
        latent: ``[..., height, width]``.
        geometry: Its grid.
    """
    if not (settings.wrap_height or settings.wrap_width):
        return
    window = settings.local is not None
    if not family.rotary:
        so = "the window does, but a seam may stay" if window else "nothing does without a window"
        report.warn(
            f"{family.name} models have a learned table of positions, which cannot wrap around: "
            f"{so}"
        )
    elif _embedder(diffusion_model) is None:
        report.warn(
            "another node has replaced the positional embedding after CLEAR Seamless, so that "
            "positions do not wrap around and a seam stays. Put CLEAR Seamless behind that node"
        )
    else:
        window_text = "window and positions wrap" if window else "positions wrap"
        report.note(f"seamless: {window_text} around after {_period(settings, geometry)}")
    cut = _cut(settings, latent, family.patch(plain_module(diffusion_model)))
    if cut:
        report.warn(cut)


def _embedder(diffusion_model: Any) -> PeriodicEmbedder | None:
    embedder = getattr(plain_module(diffusion_model), "pe_embedder", None)
    return embedder if isinstance(embedder, PeriodicEmbedder) else None


def _period(settings: Settings, geometry: Geometry) -> str:
    periods = []
    if settings.wrap_width:
        periods.append(f"{geometry.width} columns")
    if settings.wrap_height:
        periods.append(f"{geometry.height} rows")
    return " and ".join(periods)


def _cut(settings: Settings, latent: Tensor, patch: int) -> str | None:
    axes = ((settings.wrap_width, -1, "width"), (settings.wrap_height, -2, "height"))
    for wraps, axis, name in axes:
        if wraps and latent.shape[axis] % patch:
            return (
                f"the picture's {name} is no multiple of {8 * patch} pixels: its last tokens are "
                "cut, and a seam stays"
            )
    return None
