"""A model, a machine and rates that are made up, for the planner's tests."""

from __future__ import annotations

from collections import defaultdict

import torch

from clear_attention import TokenLayout, Window
from clear_attention.families.network import Job, flux, sd3
from clear_attention.plan.budget import Budget
from clear_attention.plan.cost import Rates, WindowRate
from clear_attention.plan.machine import Machine
from clear_attention.plan.report import Plan, make_plan

CPU = torch.device("cpu")
FLUX_WIDTHS = dict(
    hidden=3072, heads=24, mlp=12288, latent_values=64, input_values=64, context=4096
)
FLUX_DEV = flux(double=19, single=38, **FLUX_WIDTHS)
SMALL_FLUX = flux(
    hidden=32, heads=2, mlp=48, double=1, single=2, latent_values=8, input_values=8, context=8
)
SMALL_FLUX2 = flux(
    hidden=32,
    heads=2,
    mlp=48,
    double=1,
    single=2,
    latent_values=8,
    input_values=8,
    context=8,
    gated=True,
)
SMALL_SD3 = sd3(hidden=32, heads=2, mlp=64, joint=3, image=1, latent_values=8, context=8)


def at_any_window(seconds: float, backend: str = "tiled") -> defaultdict[Window, WindowRate]:
    """Return one rate for whichever window is asked for."""
    return defaultdict(lambda: WindowRate(seconds, backend))


RATES = Rates(
    linear=1e-9,
    stream=1e-7,
    positions=1e-5,
    heads=2e-7,
    activation=3e-7,
    copy=4e-8,
    full=1e-9,
    shared=2e-9,
    device=CPU,
    windows=at_any_window(5e-9),
)
ROOMY = Budget(available=10**12, weights=10**9, decoding=10**9, reserved=10**9)


def machine(check=lambda: None, dtype=torch.float32) -> Machine:
    """Return this machine's CPU with attention and positions in plain torch."""
    return Machine(
        device=CPU,
        dtype=dtype,
        attend=torch.nn.functional.scaled_dot_product_attention,
        positions=lambda tokens: torch.ones(tokens, 1),
        rotate=lambda q, k, positions: (q * positions, k * positions),
        check=check,
    )


def job(height=8, width=6, text=4, radius=3, **more) -> Job:
    """Return a small call."""
    return Job(TokenLayout(text, height, width), Window(radius) if radius else None, **more)


def plan(budget=ROOMY, call=None, network=SMALL_FLUX, slice_tokens=None, devices=None) -> Plan:
    """Plan a small run."""
    return make_plan(
        network,
        call or job(),
        machine(),
        budget,
        steps=20,
        token_px=16,
        title="A small FLUX",
        slice_tokens=slice_tokens,
        devices=devices,
    )
