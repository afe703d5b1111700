"""bitsandbytes' 8-bit AdamW where it is installed; else a stand-in that remembers the same.

The stand-in is for what of the trainer depends on the form of an optimiser's memory: bytes, tables
that all parameters share, scales of blocks, and none of these for small parameters.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

BLOCK, SMALLEST = 256, 4096


class StandIn(Optimizer):
    """AdamW whose averages are bytes between updates."""

    def __init__(
        self, parameters: list[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        given = dict(lr=lr, betas=betas, eps=1e-8, weight_decay=weight_decay)
        super().__init__(parameters, given | dict(alpha=0.0, t_alpha=None, t_beta3=None))
        self.tables = [torch.linspace(-1, 1, 256), torch.linspace(0, 1, 256) ** 2]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        (group,) = self.param_groups
        for parameter in group["params"]:
            state = self.state[parameter] or self.begun(parameter)
            state["step"] += 1
            means = []
            for number, beta in enumerate(group["betas"], 1):
                mean = self.read(state, number).mul_(beta)
                mean.add_((1 - beta) * parameter.grad**number)
                self.keep(state, number, mean)
                means.append(mean / (1 - beta ** state["step"]))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(group["lr"] * means[0] / (means[1].sqrt() + group["eps"]))

    def begun(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        state["step"] = 0
        small = parameter.numel() < SMALLEST
        for number, table in enumerate(self.tables, 1):
            dtype = torch.float32 if small else torch.uint8
            state[f"state{number}"] = torch.zeros_like(parameter, dtype=dtype)
            if not small:
                state[f"qmap{number}"] = table
                state[f"absmax{number}"] = torch.zeros(-(-parameter.numel() // BLOCK))
        return state

    def read(self, state: dict[str, Any], number: int) -> Tensor:
        stored = state[f"state{number}"]
        if stored.dtype != torch.uint8:
            return stored.clone()
        values = state[f"qmap{number}"][stored.long()].flatten()
        scales = state[f"absmax{number}"].repeat_interleave(BLOCK)[: values.numel()]
        return (values * scales).view_as(stored)

    def keep(self, state: dict[str, Any], number: int, mean: Tensor) -> None:
        if state[f"state{number}"].dtype != torch.uint8:
            state[f"state{number}"].copy_(mean)
            return
        short = -mean.numel() % BLOCK
        blocks = torch.cat([mean.flatten(), mean.new_zeros(short)]).view(-1, BLOCK)
        scales = blocks.abs().amax(1).clamp_min(1e-30)
        table = state[f"qmap{number}"]
        nearest = ((blocks / scales[:, None])[..., None] - table).abs().argmin(-1)
        state[f"absmax{number}"].copy_(scales)
        state[f"state{number}"].copy_(nearest.flatten()[: mean.numel()].view_as(mean))


def provide(patch: pytest.MonkeyPatch) -> None:
    """Make 8-bit AdamW importable."""
    if find_spec("bitsandbytes") is None:
        package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
        optim.AdamW8bit = StandIn
        package.optim = optim
        patch.setitem(sys.modules, "bitsandbytes", package)
        patch.setitem(sys.modules, "bitsandbytes.optim", optim)
