"""Several devices that share each step: what each computes and receives, and the time of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ..families.network import Attention, Job, Network
from ..parallel.attention import received_bytes
from ..parallel.partition import Partition, share_out
from ..window import Window
from .attention import footprint_of_band
from .cost import Rates, of_kind, token_seconds
from .cost import seconds as cost_seconds


@dataclass(frozen=True)
class Devices:
    """Equal devices that share each step, all as fast as the planned one.

    Attributes:
        count: How many.
        link: Bytes per second that a device receives from the others.
        why_one: Why one of them must compute everything; empty if the step can be shared.
    """

    count: int = 1
    link: float = 12e9
    why_one: str = ""

    @property
    def share(self) -> bool:
        """Whether several devices share the steps."""
        return self.count > 1 and not self.why_one


@dataclass(frozen=True)
class SharedCost:
    """What a call costs that several devices share.

    Attributes:
        seconds: Of the slowest device, which receives and then computes: an upper bound.
        received: Bytes that the busiest device receives.
    """

    seconds: float
    received: int


def shared_cost(
    network: Network, job: Job, rates: Rates, devices: Devices, itemsize: int
) -> SharedCost | None:
    """Work out what a call costs on several devices, None where the grid has too few lines.

    Nothing that is received overlaps with what is computed, and several devices save no work.

    Args:
        network: The model's dimensions.
        job: The call.
        rates: Of each device.
        devices: That share it.
        itemsize: Bytes of a value in which the model computes.
    """
    layout = job.layout
    multiple = max(1, job.pool_factor)
    try:
        partition = share_out(
            layout.height, layout.width, (1.0,) * devices.count, multiple=multiple
        )
    except ValueError:
        return None
    ranks = range(partition.size)
    received = [received_in_call(network, job, partition, rank, itemsize) for rank in ranks]
    taken = [
        rank_seconds(network, job, rates, partition, rank) + received[rank] / devices.link
        for rank in ranks
    ]
    # On one device a backend may do at a rate of its own what ranks leave to fused attention.
    least = cost_seconds(network, job, rates) / devices.count
    return SharedCost(max(least, *taken), max(received))


def received_in_call(
    network: Network, job: Job, partition: Partition, rank: int, itemsize: int
) -> int:
    """Return the bytes that a rank receives in a call: for each attention, and for the result.

    Key heads count as many as query heads.

    Args:
        network: The model's dimensions.
        job: The call: the mean of a run's calls where attention is full in some of them.
        partition: Of its grid.
        rank: Who receives.
        itemsize: Bytes of a value.
    """
    attentions = sum(
        _received_by(each, network, job, partition, rank, itemsize) for each in network.attentions
    )
    # The first rank puts the result together.
    others = job.layout.image - partition.image(rank) if rank == 0 else 0
    return round(attentions) + job.batch * others * network.latent_values * itemsize


def rank_seconds(
    network: Network, job: Job, rates: Rates, partition: Partition, rank: int
) -> float:
    """Return the expected time that a rank computes in a call.

    Args:
        network: The model's dimensions.
        job: The call.
        rates: Of the rank's device.
        partition: Of the call's grid.
        rank: Who computes.
    """
    lines = len(partition.band(rank))
    own = replace(job, layout=replace(job.layout, height=lines, width=partition.line))
    attention = sum(
        _attention_seconds(each, network, job, rates, partition, rank)
        * math.prod(network.heads_in(each))
        for each in network.attentions
    )
    # Each rank makes the positions of the whole grid.
    positions = rates.positions * job.layout.tokens
    return token_seconds(network, own, rates) + job.batch * (positions + attention)


def _received_by(
    attention: Attention,
    network: Network,
    job: Job,
    partition: Partition,
    rank: int,
    itemsize: int,
) -> float:
    """Return the bytes of all attentions of a kind."""
    heads, head_dim = network.heads_in(attention)

    def one(window: Window | None) -> int:
        return received_bytes(
            partition,
            rank,
            attention.layout(job.layout),
            window,
            pool_factor=job.pool_factor if window is not None else 0,
            batch=job.batch,
            heads=heads,
            head_dim=head_dim,
            itemsize=itemsize,
        )

    return of_kind(attention, job, one(None), one)


def _attention_seconds(
    attention: Attention,
    network: Network,
    job: Job,
    rates: Rates,
    partition: Partition,
    rank: int,
) -> float:
    """Return the seconds of one value of the heads, over all attentions of a kind."""
    layout = attention.layout(job.layout)
    own, shared = partition.image(rank), layout.text + layout.extra
    # Text asks each rank for its own keys, and the first one for those of the text too.
    of_text = rates.shared * shared * (own + (shared if rank == 0 else 0))
    full = rates.full * own * layout.tokens + of_text

    def local(window: Window) -> float:
        rate = rates.windows[window]
        # Of pairs only their number counts, which does not depend on the dtype.
        where = (rate.backend, torch.float32, rates.device)
        found = footprint_of_band(
            network, job, window, *where, partition, rank, image_only=attention.image_only
        )
        return rate.seconds * found.pairs + rates.shared * found.shared_pairs + of_text

    return of_kind(attention, job, full, local)
