"""What the report says of a picture that wraps around, and what stands against it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..core.calls.model_call import ModelCall
from ..core.exact_positions import embedder_of
from ..core.geometry import Geometry
from ..core.report import RunReport
from ..core.settings import Settings
from ..families import HostFamily, family_of, plain_module
from .periodic import PeriodicEmbedder


def follow_call(call: ModelCall, latent: Tensor, diffusion_model: Any) -> None:
    """Report how the picture of a model call wraps around."""
    family = family_of(diffusion_model)
    if call.report is not None and family is not None:
        _report_parts(call.report, call.asked or call.settings, call.settings)
        report_seams(call.report, call.settings, diffusion_model, family, latent, call.geometry)


def report_seams(
    report: RunReport,
    settings: Settings,
    diffusion_model: Any,
    family: HostFamily,
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
    if family.embedder is None:
        so = "the window does, but a seam may stay" if window else "nothing does without a window"
        what = "positions out of reach" if family.data.is_rotary else "a learned table of positions"
        report.warn(f"{family.title} models have {what}, which cannot wrap around: {so}")
    elif not isinstance(embedder_of(family, diffusion_model), PeriodicEmbedder):
        report.warn(
            "another node has replaced the positional embedding after CLEAR Seamless, so that "
            "positions do not wrap around and a seam stays. Put CLEAR Seamless behind that node"
        )
    else:
        window_text = "window and positions wrap" if window else "positions wrap"
        report.note(f"seamless: {window_text} around after {_period(settings, geometry)}")
    cut = _cut(settings, latent, family, plain_module(diffusion_model))
    if cut:
        report.warn(cut)


def _report_parts(report: RunReport, asked: Settings, settings: Settings) -> None:
    """Warn of sides that do not wrap around, because a call sees a part of them only."""
    sides = {
        "width": asked.wrap_width and not settings.wrap_width,
        "height": asked.wrap_height and not settings.wrap_height,
    }
    names = " and ".join(name for name, is_part in sides.items() if is_part)
    if names:
        report.warn(
            f"seamless: the picture's {names} cannot wrap around in calls that see only a part of "
            "it, such as areas of the prompt, tiles and context windows: a seam may stay"
        )


def _period(settings: Settings, geometry: Geometry) -> str:
    periods = []
    if settings.wrap_width:
        periods.append(f"{geometry.width} columns")
    if settings.wrap_height:
        periods.append(f"{geometry.height} rows")
    return " and ".join(periods)


def _cut(settings: Settings, latent: Tensor, family: HostFamily, model: nn.Module) -> str | None:
    axes = ((settings.wrap_width, -1, "width"), (settings.wrap_height, -2, "height"))
    for wraps, axis, name in axes:
        if wraps and latent.shape[axis] % family.patch(model):
            return (
                f"the picture's {name} is no multiple of {family.token_px} pixels: its last "
                "tokens are cut, and a seam stays"
            )
    return None
