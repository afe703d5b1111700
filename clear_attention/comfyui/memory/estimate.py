"""How much memory sampling needs when blocks are in slices, told to the host in its own terms.

The host makes its estimate from the latent's shape and a factor per model. For FLUX at 8K it takes
four times too much and more, so that it pushes out weights for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher

from ...layout import TokenLayout
from ...plan.attention import backend_of, footprint_of
from ...plan.memory import memory
from ...units import GIB
from ..core.job import dtype_of, job_of, network_of
from ..core.settings import Settings
from ..families import plain_module, require_family

TEXT_TOKENS = 512
"""Of a long prompt; what there is more does not count at sizes that matter."""

FIXED = GIB // 2
"""One layer's weights and what libraries need, on top of what a call holds."""


@dataclass(frozen=True)
class Estimate:
    """What the host will be told.

    Attributes:
        shape: Of a latent for which the host's own formula gives ``needed``.
        needed: Bytes.
        host: Bytes that it would have taken.
        why_not: Why the host's own estimate stays, or empty.
    """

    shape: list[int]
    needed: int
    host: int
    why_not: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        if self.why_not:
            return f"the host's estimate of {self.host / GIB:.1f} GiB stays: {self.why_not}"
        return f"estimated at {self.needed / GIB:.1f} GiB instead of {self.host / GIB:.1f} GiB"


def corrected_shape(
    model: ModelPatcher, noise_shape: Sequence[int], settings: Settings, slice_tokens: int
) -> Estimate:
    """Estimate the memory of a sampling run.

    Args:
        model: The MODEL to sample.
        noise_shape: Of the latents, ``[B, C, height, width]`` or ``[B, C, 1, height, width]``.
        settings: What CLEAR's nodes ask for.
        slice_tokens: Tokens of a slice, 0 for the automatic choice.
    """
    shape = list(noise_shape)
    host = int(model.model.memory_required(shape))
    if len(shape) not in (4, 5):
        return Estimate(shape, host, host, f"latents of {len(shape)} dimensions are not known")
    if len(shape) == 5 and shape[2] > 1:
        return Estimate(shape, host, host, f"latents of {shape[2]} frames are not known")
    why_not = _why_not_linear(model, shape, settings)
    if why_not is not None:
        return Estimate(shape, host, host, why_not)
    needed = bytes_needed(model, shape, settings, slice_tokens) + FIXED
    if needed >= host:
        return Estimate(shape, host, host, "it is the smaller one")
    area = shape[-2] * shape[-1]
    # The formula is proportional to the area; reference pictures are counted apart from it.
    return Estimate([*shape[:-2], 1, max(1, math.ceil(area * needed / host))], needed, host)


def bytes_needed(
    model: ModelPatcher, shape: Sequence[int], settings: Settings, slice_tokens: int
) -> int:
    """Return the bytes that the model calls hold at their peak, as CLEAR Plan counts them.

    Args:
        model: The MODEL.
        shape: Of the latents.
        settings: What CLEAR's nodes ask for.
        slice_tokens: Tokens of a slice, 0 for the automatic choice.
    """
    job = job_of(settings, _layout(model, shape), shape[0])
    return memory(network_of(model), job, dtype_of(model), model.load_device, slice_tokens)


def _why_not_linear(model: ModelPatcher, shape: Sequence[int], settings: Settings) -> str | None:
    local = settings.local
    if local is None:
        return "the attention has no CLEAR window"
    if local.start_percent > 0 or local.end_percent < 1:
        return "the attention is full in a part of the schedule"
    if local.dense_blocks:
        return "some blocks are kept dense"
    if local.pool_factor > 1:
        return "pooled attention is not linear"
    if _layout(model, shape).image < local.min_tokens:
        return f"the picture has fewer than min_tokens {local.min_tokens}"
    return _why_quadratic(model, shape, settings)


def _why_quadratic(model: ModelPatcher, shape: Sequence[int], settings: Settings) -> str | None:
    network, job = network_of(model), job_of(settings, _layout(model, shape), shape[0])
    where = (dtype_of(model), model.load_device)
    for window in network.windows(job):
        backend = backend_of(network, job, window, *where)
        if not footprint_of(network, job, window, backend, *where).linear:
            return f"the backend {backend} is not linear"
    return None


def _layout(model: ModelPatcher, shape: Sequence[int]) -> TokenLayout:
    module = plain_module(model.get_model_object("diffusion_model"))
    patch = require_family(model).patch(module)
    return TokenLayout(TEXT_TOKENS, -(-shape[-2] // patch), -(-shape[-1] // patch))
