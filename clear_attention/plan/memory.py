"""The bytes that a call of a model holds at its peak, beside the weights."""

from __future__ import annotations

import torch

from ..backends.strips import tile_size
from ..families.network import Job, Live, Network

LATENTS = 10
"""Copies of the latent that sampler and model hold during a step, float32 (counted, Euler)."""

SLICES, LEAST_SLICE = 16, 4096  # of tokens, by default


def memory(network: Network, job: Job, dtype: torch.dtype, device: torch.device) -> int:
    """Return the bytes beside the weights at the peak of a call.

    Counts the tensors that the host's blocks hold at once, attention being fused.

    Args:
        network: The model's dimensions.
        job: The call.
        dtype: In which the model computes.
        device: Where it computes.
    """
    tokens = job.layout.tokens * job.batch
    live = max(
        tokens * _live_bytes(moment, network, dtype.itemsize)
        for blocks in network.blocks
        for moment in blocks.moments
    )
    return live + _beside_blocks(network, job, dtype, device)


def sliced_memory(network: Network, job: Job, dtype: torch.dtype, device: torch.device) -> int:
    """Return the same when all but the attention runs in slices, as CLEAR Low Memory does it.

    Whole are the input, q, k, v and the output of the attention.
    """
    tokens, size = job.layout.tokens, dtype.itemsize
    part = min(tokens, max(LEAST_SLICE, -(-tokens // SLICES)))
    # In a slice: inputs and outputs of the widest layers, of which two hold the MLP's insides.
    sliced = part * (10 * network.hidden + 2 * network.mlp)
    live = size * job.batch * (tokens * network.attention_tensors * network.hidden + sliced)
    whole = memory(network, job, dtype, device)
    return min(whole, live + _beside_blocks(network, job, dtype, device))


def _beside_blocks(network: Network, job: Job, dtype: torch.dtype, device: torch.device) -> int:
    latents = LATENTS * 4 * network.latent_values * job.layout.image * job.batch
    positions = 4 * network.position_values * job.layout.tokens
    return latents + positions + dtype.itemsize * job.batch * _workspace(network, job, device)


def _live_bytes(moment: Live, network: Network, size: int) -> int:
    # In float32 already, tensors are not copied to become float32.
    converted = moment.float32 * network.hidden * 4 if size < 4 else 0
    return size * (moment.hidden * network.hidden + moment.mlp * network.mlp) + converted


def _workspace(network: Network, job: Job, device: torch.device) -> int:
    """Return the values that the attention itself needs."""
    if job.window is None:
        return job.layout.tokens * network.hidden  # the output in the order that the model wants
    rows, columns = tile_size(job.window, device)
    reach = 2 * min(job.window.reach, max(job.layout.height, job.layout.width))
    height = -(-job.layout.height // rows) * rows
    # Keys and values of a strip with its halo, and those of the one before.
    return 4 * network.hidden * (height + reach) * min(columns + reach, job.layout.width)
