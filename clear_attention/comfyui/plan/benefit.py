"""What a finished run would have taken with full attention, from this machine's own rates."""

from __future__ import annotations

from dataclasses import replace

from comfy.model_patcher import ModelPatcher

from ...plan.cost import attention_seconds
from ...plan.rates import measure
from ...window import Window
from ..core.benefit import ESTIMATE_KEY
from ..core.job import job_of, network_of
from ..core.patch import settings_of
from ..core.report import RunReport
from .model import machine_of


def with_estimate(model: ModelPatcher) -> ModelPatcher:
    """Return a clone whose reports also say what full attention would have taken.

    A model without a window is returned as it is.
    """
    if settings_of(model).local is None:
        return model
    model = model.clone()
    model.model_options.setdefault("transformer_options", {})[ESTIMATE_KEY] = seconds_in_full
    return model


def seconds_in_full(report: RunReport, model: ModelPatcher) -> float | None:
    """Return the seconds that a run would have taken with full attention, None without a base.

    To what was measured comes what the attention would have taken more: the difference between a
    layer of each kind, timed on this machine once, for as many as were computed. Measuring takes a
    second or two.

    Args:
        report: Of the finished run.
        model: That ran.
    """
    if report.seconds is None or report.shared:  # devices beside each other do not add up
        return None
    network, machine = network_of(model), machine_of(model)
    saved = 0.0
    for path, calls in report.calls.items():
        if path.radius is None or path.layout is None or path.whose:
            continue
        settings = settings_of(model)
        window = Window(path.radius, settings.wrap_height, settings.wrap_width)
        asked = job_of(settings, path.layout, 1).with_one(window)
        job = replace(asked, backend=path.backend, local_share=1.0)
        rates = measure(network, job, machine)
        full, local = (attention_seconds(network, one, rates) for one in (job.full(), job))
        attentions = sum(each.count for each in network.attentions)
        saved += (full - local) * calls / attentions
    return report.seconds + saved * report.pictures_per_call
