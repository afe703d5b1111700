"""What published ControlNets add to a step of FLUX.1 [dev] at 8192 pixels: counted, not timed.

The planner's count of operations, of linear layers and of the pairs that attention computes. A
ControlNet is a FLUX of fewer blocks, with one more linear layer behind each of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from clear_attention.families.network import Job, Network, flux
from clear_attention.layout import TokenLayout
from clear_attention.plan.cost import cost
from clear_attention.window import Window

EDGE_TOKENS, TEXT = 512, 512
RADII = (8, 16, 32)
EVERY = (1, 2)
MOST = 0.20  # of a step: what is within it is marked
WIDTHS: dict[str, Any] = dict(
    hidden=3072, heads=24, mlp=12288, latent_values=64, input_values=64, context=4096
)
NETS = {  # double and single blocks
    "InstantX Union Pro": (5, 10),
    "Shakker Union Pro 2.0": (6, 0),
    "XLabs": (2, 0),
}


def counted() -> str:
    """Return the table."""
    model = flux(double=19, single=38, **WIDTHS)
    lines = [
        f"**Counted, at 8192 x 8192 pixels**: {EDGE_TOKENS} x {EDGE_TOKENS} tokens, {TEXT} text "
        "tokens, FLUX.1 [dev] (19 double and 38 single blocks) behind CLEAR. Operations that a net "
        f"adds to those of a step; within {100 * MOST:.0f} % in bold.",
        "",
        "| ControlNet | blocks | "
        + " | ".join(f"r = {radius}, {often(every)}" for radius in RADII for every in EVERY)
        + " | full attention, r = 16 |",
        "|---" * (3 + len(RADII) * len(EVERY)) + "|",
    ]
    for name, (double, single) in NETS.items():
        net = control_net(double, single)
        shares = [
            flop(net, radius) / every / flop(model, radius) for radius in RADII for every in EVERY
        ]
        full = flop(net, None) / flop(model, 16)
        cells = [name, f"{double} + {single}", *map(told, shares), told(full)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def control_net(double: int, single: int) -> Network:
    """Describe a FLUX ControlNet, whose input layer for the hint stands for the last one."""
    net = flux(double=double, single=single, **WIDTHS)
    behind = (double + single) * net.hidden**2
    return dataclasses.replace(net, image_weights=net.image_weights + behind)


def flop(network: Network, radius: int | None) -> int:
    """Count the operations of one call."""
    window = None if radius is None else Window(radius)
    job = Job(TokenLayout(TEXT, EDGE_TOKENS, EDGE_TOKENS), window)
    return cost(network, job, torch.bfloat16, torch.device("cpu")).flop


def often(every: int) -> str:
    """Say how often a net runs."""
    return "each step" if every == 1 else f"every {every}"


def told(share: float) -> str:
    """Return a share, in bold where it is small enough."""
    text = f"{100 * share:.1f} %"
    return f"**{text}**" if share <= MOST else text
