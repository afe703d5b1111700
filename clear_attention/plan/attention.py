"""The attention calls of a planned job: who computes them, and what they take."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..backends import BACKENDS, Call, Footprint, resolve_name
from ..families.network import Job, Network
from ..layout import TokenLayout
from ..parallel.attention import band_call
from ..parallel.partition import Partition
from ..window import Window


def backend_of(
    network: Network, job: Job, window: Window, dtype: torch.dtype, device: torch.device
) -> str:
    """Return the name of the backend that computes the attentions of a call with a window.

    Args:
        network: The model's dimensions.
        job: The call.
        window: One of its windows.
        dtype: In which the model computes.
        device: Where it computes.
    """
    image_only = all(one.image_only for one in network.attentions)
    layout = _layout(job, image_only)
    q = _query(network, job, layout.tokens, dtype, device, image_only)
    return resolve_name(q, Call(layout, window, job.pooling, scale=1.0), job.backend)


def footprint_of(
    network: Network,
    job: Job,
    window: Window,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    image_only: bool = False,
) -> Footprint:
    """Return what a backend takes for one attention of a call.

    Args:
        network: The model's dimensions.
        job: The call.
        window: Of the attention.
        backend: Its name.
        dtype: In which the model computes.
        device: Where it computes.
        image_only: Whether text takes no part.
    """
    layout = _layout(job, image_only)
    q = _query(network, job, layout.tokens, dtype, device, image_only)
    return BACKENDS[backend].footprint(q, Call(layout, window, job.pooling, scale=1.0))


def footprint_of_band(
    network: Network,
    job: Job,
    window: Window,
    backend: str,
    dtype: torch.dtype,
    device: torch.device,
    partition: Partition,
    rank: int,
    *,
    image_only: bool = False,
) -> Footprint:
    """Return what a backend takes for the image tokens of one rank in one attention of a call.

    Args:
        network: The model's dimensions.
        job: The call.
        window: Of the attention.
        backend: Its name.
        dtype: In which the model computes.
        device: Where it computes.
        partition: Of the grid.
        rank: Whose tokens.
        image_only: Whether text takes no part.
    """
    layout = _layout(job, image_only)
    call = band_call(partition, rank, layout, window, job.pooling, scale=1.0)
    tokens = call.queries.tokens(call.layout)
    q = _query(network, job, tokens, dtype, device, image_only)
    return BACKENDS[backend].footprint(q, call)


def _layout(job: Job, image_only: bool) -> TokenLayout:
    return replace(job.layout, text=0) if image_only else job.layout


def _query(
    network: Network,
    job: Job,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    image_only: bool,
) -> Tensor:
    """Return so many queries as the model will have them, without their memory."""
    heads, head_dim = network.heads_of(image_only=image_only)
    shape = (job.batch, heads, tokens, head_dim)
    return torch.empty((1,), device=device, dtype=dtype).expand(shape)
