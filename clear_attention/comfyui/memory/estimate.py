"""How much memory sampling needs when blocks are in slices, told to the host in its own terms.

The host makes its estimate from the latent's shape and a factor per model. For FLUX at 8K it takes
four times too much and more, so that it pushes out weights for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...backends import Call, choose_name
from ...layout import TokenLayout
from ...plan.slices import slice_size
from ...units import GIB
from ..core.settings import Settings
from ..families.family import plain_module, require_family

TEXT_TOKENS = 512
"""Of a long prompt; what there is more does not count at sizes that matter."""

BESIDE_ATTENTION = 4.5
"""Hidden tensors ``[B, L, C]`` alive while a block attends: its input, q, k, v, the positions."""

# Of the attention itself, its output included, in hidden tensors. Measured for tiled on a CPU, see
# benchmarks/low_memory.py; the others copy q, k and v at most once.
BY_BACKEND = {"triton": 2.0, "flex": 2.0, "triton_int8": 4.0}

SLICE = 18.0
"""Hidden tensors of a slice: the widest layer's inputs and outputs (5 + 7 + 5), and the sum."""

SECOND_ATTENTION = 4.0
"""Hidden tensors of SD3.5 medium's second attention: q, k, v and output of the image alone."""

FIXED = GIB // 2
"""One layer's weights, the latents, and what libraries need."""


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
        noise_shape: Of the latents, ``[B, C, height, width]``.
        settings: What CLEAR's nodes ask for.
        slice_tokens: Tokens of a slice, 0 for the automatic choice.
    """
    shape = list(noise_shape)
    host = int(model.model.memory_required(shape))
    if len(shape) != 4:
        return Estimate(shape, host, host, f"latents of {len(shape)} dimensions are not known")
    why_not = _why_not_linear(model, shape, settings)
    if why_not is not None:
        return Estimate(shape, host, host, why_not)
    needed = bytes_needed(model, shape, settings, slice_tokens)
    if needed >= host:
        return Estimate(shape, host, host, "it is the smaller one")
    area = shape[2] * shape[3]
    # The formula is proportional to the area; reference pictures are counted apart from it.
    return Estimate([*shape[:2], 1, max(1, math.ceil(area * needed / host))], needed, host)


def bytes_needed(
    model: ModelPatcher, shape: Sequence[int], settings: Settings, slice_tokens: int
) -> int:
    """Return the activations' bytes, linear in the tokens: the model calls' peak.

    Args:
        model: The MODEL, whose attention is linear.
        shape: Of the latents.
        settings: With a window.
        slice_tokens: Tokens of a slice, 0 for the automatic choice.
    """
    module: Any = _module(model)
    layout = _layout(model, shape)
    size = min(slice_size(layout.tokens, slice_tokens), layout.tokens)
    hidden = shape[0] * module.hidden_size * _dtype(model).itemsize
    tensors = BESIDE_ATTENTION + _of_attention(model, shape, settings)
    if "image" in require_family(model).blocks(module):
        tensors += SECOND_ATTENTION
    return int(hidden * (layout.tokens * tensors + size * SLICE)) + FIXED


def _of_attention(model: ModelPatcher, shape: Sequence[int], settings: Settings) -> float:
    assert settings.local is not None
    backend = _backend(model, shape, settings)
    # Strips of a tile's width copy their keys and values, and those of a radius on both sides.
    return BY_BACKEND.get(backend, 1.5 + settings.local.radius / 12)


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
    backend = _backend(model, shape, settings)
    if backend in ("masked", "reference"):
        return f"the backend {backend} is not linear"
    return None


def _backend(model: ModelPatcher, shape: Sequence[int], settings: Settings) -> str:
    local, window = settings.local, settings.window
    assert local is not None and window is not None
    if local.backend != "auto":
        return local.backend
    q = _query(model, shape)
    return choose_name(q, Call(_layout(model, shape), window, None, q.shape[-1] ** -0.5))


def _query(model: ModelPatcher, shape: Sequence[int]) -> Tensor:
    """Return a query as the model will have it, without its memory."""
    module: Any = _module(model)
    depth = module.hidden_size // module.num_heads
    one = torch.empty(1, 1, 1, depth, dtype=_dtype(model), device=model.load_device)
    return one.expand(shape[0], module.num_heads, _layout(model, shape).tokens, depth)


def _layout(model: ModelPatcher, shape: Sequence[int]) -> TokenLayout:
    patch = require_family(model).patch(_module(model))
    return TokenLayout(TEXT_TOKENS, -(-shape[2] // patch), -(-shape[3] // patch))


def _module(model: ModelPatcher) -> Any:
    return plain_module(model.get_model_object("diffusion_model"))


def _dtype(model: ModelPatcher) -> torch.dtype:
    """Return the dtype of the activations."""
    return model.model.manual_cast_dtype or model.model.get_dtype()
