"""What a sampling step costs, full attention against CLEAR: operations, seconds, memory.

Pure arithmetic on a model's dimensions; `planner_rates` measures what a machine makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ..families.network import Attention, Blocks, Job, Network
from ..pairs import all_pairs, visible_pairs
from ..window import Window
from .attention import footprint_of
from .memory import memory


@dataclass(frozen=True)
class WindowRate:
    """What a backend needs for a window.

    Attributes:
        seconds: For one pair that its own kernel computes and one value of the heads.
        backend: Its name.
    """

    seconds: float
    backend: str


@dataclass(frozen=True)
class Rates:
    """What a machine needs for a unit of work, in seconds.

    Attributes:
        linear: For one floating point operation of a linear layer.
        stream: To normalise, modulate, gate and add one value of a hidden tensor.
        positions: To make the rotary positions of one token.
        heads: To normalise, and rotate where the model does, one value of queries or keys.
        activation: For one value inside an MLP.
        copy: To copy one value.
        full: For one pair of full attention and one value of the heads.
        shared: For one pair that CLEAR leaves to plain fused attention, likewise.
        device: Where all of this was measured.
        windows: Of each window that a call has.
    """

    linear: float
    stream: float
    positions: float
    heads: float
    activation: float
    copy: float
    full: float
    shared: float
    device: torch.device
    windows: Mapping[Window, WindowRate] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one call costs: the mean of a run's calls where attention is full in some of them.

    Attributes:
        pairs: Query-key pairs of one head, the mean of the attentions over all tokens.
        linear_flop: Floating point operations of the linear layers.
        attention_flop: Floating point operations of the attention.
        seconds: Expected, 0 where nothing was measured.
        memory: Bytes beside the weights at the peak of all calls.
        sliced_memory: The same with everything but the attention in slices of tokens.
    """

    pairs: int
    linear_flop: int
    attention_flop: int
    seconds: float
    memory: int
    sliced_memory: int

    @property
    def flop(self) -> int:
        """All floating point operations."""
        return self.linear_flop + self.attention_flop


def cost(
    network: Network,
    job: Job,
    dtype: torch.dtype,
    device: torch.device,
    rates: Rates | None = None,
    slice_tokens: int = 0,
) -> Cost:
    """Work out what a call costs.

    Args:
        network: The model's dimensions.
        job: The call.
        dtype: In which the model computes.
        device: Where it computes; memory depends on it.
        rates: Of this machine; without them no seconds come out.
        slice_tokens: Tokens that the linear layers take at a time in slices, 0 for the automatic
            choice.
    """
    return Cost(
        pairs=mean_pairs(network, job),
        linear_flop=linear_flop(network, job),
        attention_flop=attention_flop(network, job),
        seconds=0.0 if rates is None else seconds(network, job, rates),
        memory=memory(network, job, dtype, device),
        sliced_memory=memory(network, job, dtype, device, slice_tokens),
    )


def linear_flop(network: Network, job: Job) -> int:
    """Count the operations of the linear layers; what runs once per picture is left out."""
    image, text = network.image_weights, network.text_weights
    tokens = job.layout.image + job.layout.extra
    return 2 * job.batch * (image * tokens + text * job.layout.text)


def mean_pairs(network: Network, job: Job) -> int:
    """Count the pairs of one head, the mean of all attentions, or of those over all tokens."""
    among = [each for each in network.attentions if not each.image_only] or network.attentions
    number = sum(each.count for each in among)
    return round(sum(_all_pairs(each, job) for each in among) / number) if number else 0


def attention_flop(network: Network, job: Job) -> int:
    """Count the operations of the attention: 4 x heads x head_dim x pairs (CLEAR, table 1)."""
    pairs: dict[int, float] = {}
    for each in network.attentions:
        width = math.prod(network.heads_in(each))
        pairs[width] = pairs.get(width, 0) + _all_pairs(each, job)
    return sum(round(4 * width * job.batch * number) for width, number in pairs.items())


def seconds(network: Network, job: Job, rates: Rates) -> float:
    """Return the expected time of a call."""
    positions = rates.positions * job.layout.tokens
    others = token_seconds(network, job, rates) + job.batch * positions
    return others + attention_seconds(network, job, rates)


def attention_seconds(network: Network, job: Job, rates: Rates) -> float:
    """Return the part of a call's expected time that its attention takes."""
    return job.batch * sum(
        _attention_seconds(each, network, job, rates) * math.prod(network.heads_in(each))
        for each in network.attentions
    )


def token_seconds(network: Network, job: Job, rates: Rates) -> float:
    """Return the expected time of what each token goes through alone, positions apart."""
    elementwise = sum(
        each.count * each.layout(job.layout).tokens * _elementwise(each, network, rates)
        for each in network.blocks
    )
    return rates.linear * linear_flop(network, job) + job.batch * elementwise


def _elementwise(blocks: Blocks, network: Network, rates: Rates) -> float:
    """Return the seconds that a token spends outside of linear layers and attention."""
    hidden, mlp = blocks.hidden or network.hidden, blocks.mlp or network.mlp
    return (
        rates.stream * blocks.streams * hidden
        + rates.heads * blocks.heads * hidden
        + rates.activation * mlp
        + rates.copy * (blocks.copies * hidden + blocks.mlp_copies * mlp)
    )


def _attention_seconds(attention: Attention, network: Network, job: Job, rates: Rates) -> float:
    """Return the seconds of one value of the heads, over all attentions of a kind."""
    full = rates.full * all_pairs(attention.layout(job.layout))

    def local(window: Window) -> float:
        rate = rates.windows[window]
        # Of pairs only their number counts, which does not depend on the dtype.
        where = (rate.backend, torch.float32, rates.device)
        found = footprint_of(network, job, window, *where, image_only=attention.image_only)
        return rate.seconds * found.pairs + rates.shared * found.shared_pairs

    return of_kind(attention, job, full, local)


def of_kind(attention: Attention, job: Job, full: float, local: Callable[[Window], float]) -> float:
    """Sum up attentions of a kind, the mean of a run's calls.

    Args:
        attention: The kind.
        job: The call: says which of them have which window, and how often.
        full: What one of them takes that stays full.
        local: What one of them takes with a window.
    """
    total: float = 0
    for window, number in attention.windows(job).items():
        # Whole numbers as they are: a float cannot hold all of them.
        one = full if window is None else local(window)
        total += number * (one if job.local_share == 1 else full + job.local_share * (one - full))
    return total


def _all_pairs(attention: Attention, job: Job) -> float:
    """Count the pairs of one head of all attentions of a kind, the mean of a run's calls."""
    layout = attention.layout(job.layout)
    return of_kind(
        attention,
        job,
        all_pairs(layout),
        lambda window: visible_pairs(layout, window, job.pooling),
    )
