"""What a sampling step costs, full attention against CLEAR: operations, seconds, memory.

Pure arithmetic on a model's dimensions; `planner_rates` measures what a machine makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..families.network import Attention, Blocks, Job, Network
from ..layout import TokenLayout
from ..pairs import all_pairs, visible_pairs
from ..window import Window
from .memory import memory, sliced_memory


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
        shared: For one pair that CLEAR computes without a window, likewise.
        window: For one pair of a window that no border cuts, likewise.
        backend: Which of CLEAR's backends the last one belongs to.
    """

    linear: float
    stream: float
    positions: float
    heads: float
    activation: float
    copy: float
    full: float
    shared: float
    window: float
    backend: str


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Attributes:
        pairs: Query-key pairs of one head of an attention over all tokens.
        linear_flop: Floating point operations of the linear layers.
        attention_flop: Floating point operations of the attention.
        seconds: Expected, 0 where nothing was measured.
        memory: Bytes beside the weights at the peak.
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
) -> Cost:
    """Work out what a call costs.

    Args:
        network: The model's dimensions.
        job: The call.
        dtype: In which the model computes.
        device: Where it computes; memory depends on it.
        rates: Of this machine; without them no seconds come out.
    """
    return Cost(
        pairs=_pairs(job, job.layout),
        linear_flop=linear_flop(network, job),
        attention_flop=attention_flop(network, job),
        seconds=0.0 if rates is None else seconds(network, job, rates),
        memory=memory(network, job, dtype, device),
        sliced_memory=sliced_memory(network, job, dtype, device),
    )


def linear_flop(network: Network, job: Job) -> int:
    """Count the operations of the linear layers; what runs once per picture is left out."""
    image, text = network.image_weights, network.text_weights
    tokens = job.layout.image + job.layout.extra
    return 2 * job.batch * (image * tokens + text * job.layout.text)


def attention_flop(network: Network, job: Job) -> int:
    """Count the operations of the attention: 4 x heads x head_dim x pairs (CLEAR, table 1)."""
    pairs = sum(
        (each.count - each.dense(job.dense)) * _pairs(job, each.layout(job.layout))
        + each.dense(job.dense) * all_pairs(each.layout(job.layout))
        for each in network.attentions
    )
    return 4 * network.hidden * job.batch * pairs


def seconds(network: Network, job: Job, rates: Rates) -> float:
    """Return the expected time of a call."""
    tokens, hidden, mlp = job.layout.tokens, network.hidden, network.mlp
    elementwise = sum(
        each.count * tokens * _elementwise(each, hidden, mlp, rates) for each in network.blocks
    )
    attention = sum(_attention_seconds(each, job, rates) for each in network.attentions)
    once = rates.linear * linear_flop(network, job) + rates.positions * tokens
    return once + job.batch * (elementwise + attention * hidden)


def _elementwise(blocks: Blocks, hidden: int, mlp: int, rates: Rates) -> float:
    """Return the seconds that a token spends outside of linear layers and attention."""
    return (
        rates.stream * blocks.streams * hidden
        + rates.heads * blocks.heads * hidden
        + rates.activation * mlp
        + rates.copy * (blocks.copies * hidden + blocks.mlp_copies * mlp)
    )


def _attention_seconds(attention: Attention, job: Job, rates: Rates) -> float:
    """Return the seconds of one value of the heads, over all attentions of a kind."""
    layout, dense = attention.layout(job.layout), attention.dense(job.dense)
    full = rates.full * all_pairs(layout)
    if job.window is None:
        return attention.count * full
    return dense * full + (attention.count - dense) * _local_seconds(layout, job, rates)


def _local_seconds(layout: TokenLayout, job: Job, rates: Rates) -> float:
    assert job.window is not None
    windows = rates.window * window_pairs(layout, job.window, rates.backend)
    if rates.backend == "masked":
        return windows
    exact = visible_pairs(layout, job.window, job.pooling)
    return windows + rates.shared * (exact - job.window.pairs(layout.height, layout.width))


def window_pairs(layout: TokenLayout, window: Window, backend: str) -> int:
    """Count the pairs that set the time of a backend, as `Rates.window` counts them."""
    if backend == "masked":  # on small grids, where it is chosen: one call over all pairs
        return all_pairs(layout)
    # Tiles at the borders cost as much as those inside.
    return layout.image * min(window.tokens, layout.image)


def _pairs(job: Job, layout: TokenLayout) -> int:
    if job.window is None:
        return all_pairs(layout)
    return visible_pairs(layout, job.window, job.pooling)
