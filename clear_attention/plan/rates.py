"""How fast this machine computes what a transformer consists of: a micro-benchmark of a second.

Each part runs on tensors as wide as the model's, and as long as its own where time allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import attention
from ..backends import BACKENDS, Call
from ..families.network import Job, Network
from ..layout import TokenLayout
from ..partial import attend_part
from ..window import Window
from .attention import backend_of, footprint_of
from .cost import Rates, WindowRate
from .machine import Machine, TimedPart

WIDEST = 4096  # side of the linear layers that are timed

COLD = 4
"""Longest sample, as a multiple of the call: about the working set of a whole block, so that caches
are as cold as in a run."""


@torch.inference_mode()
def measure(network: Network, job: Job, machine: Machine) -> Rates:
    """Measure what the parts of a model cost on this machine.

    Args:
        network: The model's dimensions.
        job: The call that will be made.
        machine: Where; remembers what it measured.
    """
    hidden, mlp, tokens = network.hidden, network.mlp, job.layout.tokens
    shape = (hidden, network.heads, mlp, bool(network.position_values))

    def unit(name: str, part: Callable[[int], TimedPart], power: int = 1) -> float:
        most = tokens if power > 1 else COLD * tokens
        return machine.per_unit((name, *shape), most, part, power)

    rates = Rates(
        linear=unit("linear", lambda rows: _linear(machine, rows, hidden, mlp)),
        stream=unit("stream", lambda rows: _stream(machine, rows, hidden)),
        positions=unit("positions", lambda rows: _positions(machine, rows)),
        heads=unit("heads", lambda rows: _heads(machine, rows, network)),
        activation=unit("activation", lambda rows: _activation(machine, rows, hidden, mlp)),
        copy=unit("copy", lambda rows: _copy(machine, rows, hidden)),
        full=unit("full", lambda rows: _full(machine, rows, network), 2),
        shared=unit("shared", lambda rows: _shared(machine, rows, network), 2),
        device=machine.device,
    )
    return with_windows(rates, network, job, machine)


@torch.inference_mode()
def with_windows(rates: Rates, network: Network, job: Job, machine: Machine) -> Rates:
    """Return the rates for a call whose size lets CLEAR choose other backends."""
    windows = {
        window: _window_rate(rates.windows.get(window), window, network, job, machine)
        for window in network.windows(job)
    }
    return replace(rates, windows=windows)


def _window_rate(
    known: WindowRate | None, window: Window, network: Network, job: Job, machine: Machine
) -> WindowRate:
    backend = backend_of(network, job, window, machine.dtype, machine.device)
    if known is not None and known.backend == backend:
        return known
    found = footprint_of(network, job, window, backend, machine.dtype, machine.device)
    # What the backend leaves to fused attention has a rate of its own.
    grid = replace(job.layout, text=0 if found.shared_pairs else job.layout.text, extra=0)

    def part(tokens: int) -> TimedPart:
        return _window(machine, _smaller(grid, tokens), window, network, backend)

    key = ("window", backend, window, network.hidden, network.heads)
    taken = machine.per_unit(key, grid.tokens, part, 1 if found.linear else 2)
    return WindowRate(taken, backend)


def _linear(machine: Machine, rows: int, hidden: int, mlp: int) -> TimedPart:
    # A block's way out and back: new memory for a wide result costs as much as many products.
    wide, inner = min(WIDEST, 3 * hidden + mlp), min(WIDEST, hidden + mlp)
    x, middle = machine.random(rows, hidden), machine.random(rows, inner)
    out, back = machine.random(wide, hidden), machine.random(hidden, inner)

    def run() -> Tensor:
        F.linear(x, out, out[:, 0])
        return F.linear(middle, back, back[:, 0])

    return TimedPart(run, 2 * rows * hidden * (wide + inner))


def _stream(machine: Machine, rows: int, hidden: int) -> TimedPart:
    x, branch = machine.random(rows, hidden), machine.random(rows, hidden)
    scale, shift, gate = machine.random(3, hidden)

    def run() -> Tensor:
        normal = torch.addcmul(shift, F.layer_norm(x, (hidden,)), 1 + scale)
        x.add_(branch * gate)
        return normal

    return TimedPart(run, rows * hidden)


def _positions(machine: Machine, rows: int) -> TimedPart:
    make = machine.positions
    return TimedPart(lambda: torch.zeros(1) if make is None else make(rows), rows)


def _heads(machine: Machine, rows: int, network: Network) -> TimedPart:
    # Strided, as the host has them after its fused projection.
    qkv = machine.random(1, rows, 3, network.heads, network.head_dim).permute(2, 0, 3, 1, 4)
    weight = machine.random(network.head_dim)
    positions = None if machine.positions is None else machine.positions(rows)

    def run() -> Tensor:
        q, k = (F.rms_norm(x, weight.shape, weight, 1e-6) for x in (qkv[0], qkv[1]))
        return k if positions is None else machine.rotate(q, k, positions)[1]

    return TimedPart(run, 2 * rows * network.hidden)


def _activation(machine: Machine, rows: int, hidden: int, mlp: int) -> TimedPart:
    wide = machine.random(rows, 3 * hidden + mlp)[:, 3 * hidden :]
    return TimedPart(lambda: F.gelu(wide, approximate="tanh"), rows * mlp)


def _copy(machine: Machine, rows: int, hidden: int) -> TimedPart:
    one, other = machine.random(rows, hidden), machine.random(rows, hidden)
    return TimedPart(lambda: torch.cat((one, other), 1), 2 * rows * hidden)


def _full(machine: Machine, rows: int, network: Network) -> TimedPart:
    q, k, v = machine.random(3, 1, network.heads, rows, network.head_dim)
    return TimedPart(lambda: machine.attend(q, k, v), rows * rows * network.hidden)


def _shared(machine: Machine, rows: int, network: Network) -> TimedPart:
    q, k, v = machine.random(3, 1, network.heads, rows, network.head_dim)
    return TimedPart(
        lambda: attend_part(q, k, v, scale=network.head_dim**-0.5).out,
        rows * rows * network.hidden,
    )


def _window(
    machine: Machine, layout: TokenLayout, window: Window, network: Network, backend: str
) -> TimedPart:
    q, k, v = machine.random(3, 1, network.heads, layout.tokens, network.head_dim)

    def run() -> Tensor:
        out = attention(q, k, v, layout, window, backend=backend)
        assert isinstance(out, Tensor)
        return out

    found = BACKENDS[backend].footprint(q, Call(layout, window, None, scale=1.0))
    return TimedPart(run, found.pairs * network.hidden)


def _smaller(layout: TokenLayout, tokens: int) -> TokenLayout:
    """Return a grid of about so many tokens and the same shape, the text in proportion."""
    share = math.sqrt(min(1.0, tokens / layout.tokens))
    height, width = (max(1, round(edge * share)) for edge in (layout.height, layout.width))
    return TokenLayout(round(layout.text * share * share), height, width)
