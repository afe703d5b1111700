"""The seconds of a step with a radius per block, as CLEAR Plan expects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comfy.model_patcher import ModelPatcher

from ...families.names import Block
from ...layout import TokenLayout
from ...plan.cost import seconds
from ...plan.rates import measure
from ..core.job import job_of, network_of
from ..core.patch import settings_of
from ..core.settings import WindowSettings
from .model import machine_of


def step_seconds(
    model: ModelPatcher, layout: TokenLayout, radii: Mapping[Block, int]
) -> tuple[float, float]:
    """Return what a call of a model takes with full attention, and with these radii.

    Measuring this machine for them takes some seconds, once as long as ComfyUI runs.

    Args:
        model: A MODEL, left as it is.
        layout: The tokens of one picture.
        radii: Of all blocks.
    """
    network = network_of(model)
    window = WindowSettings(max(radii.values()), radii=radii)
    job = job_of(replace(settings_of(model), local=window), layout, 1)
    rates = measure(network, job, machine_of(model))
    return seconds(network, job.full(), rates), seconds(network, job, rates)
