"""The attention calls of a planned job: who computes them, and what they take."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..backends import BACKENDS, Call, Footprint, resolve_name
from ..families.network import Job, Network
from ..layout import TokenLayout

FULL = "full"
"""What stands for a backend's name where there is no window."""


def backend_of(network: Network, job: Job, dtype: torch.dtype, device: torch.device) -> str:
    """Return the name of the backend that computes a call, `FULL` without a window."""
    if job.window is None:
        return FULL
    q = _query(network, job, job.layout, dtype, device)
    return resolve_name(q, _call(job, job.layout), job.backend)


def footprint_of(
    network: Network,
    job: Job,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    image_only: bool = False,
) -> Footprint:
    """Return what a backend takes for one attention of a call.

    Args:
        network: The model's dimensions.
        job: The call, with a window.
        backend: Its name.
        dtype: In which the model computes.
        device: Where it computes.
        image_only: Whether text takes no part.
    """
    layout = replace(job.layout, text=0) if image_only else job.layout
    q = _query(network, job, layout, dtype, device)
    return BACKENDS[backend].footprint(q, _call(job, layout))


def _call(job: Job, layout: TokenLayout) -> Call:
    assert job.window is not None
    return Call(layout, job.window, job.pooling, scale=1.0)


def _query(
    network: Network, job: Job, layout: TokenLayout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return queries as the model will have them, without their memory."""
    shape = (job.batch, network.heads, layout.tokens, network.head_dim)
    return torch.empty((1,), device=device, dtype=dtype).expand(shape)
