"""The plan as a node gives it, and the wrappers that hold it against the run."""

from __future__ import annotations

import time
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...parallel.attention import Seat
from ...plan.figure import draw
from ...plan.outcome import TimedCall, outcome
from ...plan.report import Plan
from ..core import host
from ..core.calls.model_call import SEAT_KEY, geometry_of_call, why_dense
from ..core.patch import SETTINGS_KEY
from ..core.pictures import figure_or_message
from ..core.report import RunReport
from ..core.settings import Settings
from ..families import family_of
from .model import plan_model

PLAN_KEY = "clear_attention_plan"
STOPWATCH_KEY = "clear_attention_stopwatch"
"""Where the `Stopwatch` of the running sampling lies in transformer_options."""


class Stopwatch:
    """Collects the calls of one sampling run."""

    def __init__(self) -> None:
        self.calls: list[TimedCall] = []


def plan_run(
    model: ModelPatcher, size_px: tuple[int, int], *, node_id: str | None = None, **given: Any
) -> tuple[str, Tensor, ModelPatcher]:
    """Plan a run, and return the model that compares the plan with it.

    Args:
        model: A MODEL, left as it is.
        size_px: Height and width of the picture.
        node_id: The node that shows the comparison.
        **given: Further arguments of `plan_model`.

    Returns:
        The plan as text, its plot ``[1, height_px, width_px, 3]``, and a clone of the model.
    """
    host.require_usable()
    plan = plan_model(model, size_px, **given)
    return (
        plan.table(),
        figure_or_message(lambda: draw(plan))[None],
        with_plan(model, plan, node_id),
    )


def with_plan(model: ModelPatcher, plan: Plan, node_id: str | None = None) -> ModelPatcher:
    """Return a clone whose runs are held against a plan; of two plans the later one counts."""
    node_ids = () if node_id is None else (node_id,)

    def compare(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = executor.class_obj.model_options["transformer_options"]
        stopwatch = options[STOPWATCH_KEY] = Stopwatch()
        device = plan.machine.device
        _forget_peak(device)
        try:
            return executor(*args, **kwargs)
        finally:
            report = RunReport()
            for line in outcome(plan, stopwatch.calls, _peak(device)):
                report.note(line)
            report.publish(node_ids, attention=False)

    model = model.clone()
    wrappers = model.model_options.get("transformer_options", {}).get("wrappers", {})
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, compare), (WrappersMP.APPLY_MODEL, timed_call)):
        wrappers.get(kind, {}).pop(PLAN_KEY, None)
        add_wrapper_with_key(kind, PLAN_KEY, wrapper, model.model_options, is_model_options=True)
    return model


def timed_call(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Time one call of the model; of several ranks that share it, the first one does."""
    options = transformer_options or {}
    stopwatch: Stopwatch | None = options.get(STOPWATCH_KEY)
    seat: Seat | None = options.get(SEAT_KEY)
    if seat is not None and seat.rank:
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
    _wait_for(x.device)
    started = time.perf_counter()
    out = executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
    _wait_for(x.device)
    if stopwatch is not None:
        taken = time.perf_counter() - started
        stopwatch.calls.append(_timed(executor.class_obj, x, t, options, taken))
    return out


def _timed(model: Any, x: Tensor, t: Tensor, options: dict[str, Any], seconds: float) -> TimedCall:
    family = family_of(model.diffusion_model)
    assert family is not None
    geometry = geometry_of_call(family, model.diffusion_model, x, {})
    settings: Settings = options.get(SETTINGS_KEY, Settings())
    local = settings.local
    dense = why_dense(local, geometry, t, model.model_sampling) is not None
    radius, radii = (None, {}) if dense or local is None else (local.radius, local.radii)
    seat: Seat | None = options.get(SEAT_KEY)
    devices = 1 if seat is None else seat.partition.size
    return TimedCall(x.shape[0], geometry.height, geometry.width, radius, seconds, devices, radii)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    """Return the bytes that torch held at most, or None where it does not count them."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
