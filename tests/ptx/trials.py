"""Calls of the Triton backend, executed by the interpreter and measured against float64.

The product's own operators run on tensors of the CPU. The only thing that is replaced is what a
card would do: compile for it, and execute (`driver.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from attention_cases import Case
from ptx.driver import Launched, Machine, Roles
from ptx.library import Options
from torch import Tensor

from clear_attention import Pooling
from clear_attention.backends import reference, triton
from clear_attention.backends.call import Call
from clear_attention.backends.triton import configs, launch
from clear_attention.backends.triton.lists import Lists
from clear_attention.partial import Part
from clear_attention.queries import ALL, Queries

WRITTEN = {
    "forward": ("out", "lse"),
    "backward_queries": ("out",),
    "backward_keys": ("k_out", "v_out"),
    "round_rows": ("out", "steps"),
}
STEPS = ("q_steps", "k_steps", "shared_k_steps")
GRADIENTS = ("dq", "dk", "dv", "dw")  # the last one of pooling weights
HALF_OF_FLOAT32 = 2.0**-24


def roles(kernel: str, arguments: dict[str, Any]) -> Roles:
    """Say which tensors a kernel of ours writes, and which it is given to fill a place."""
    unread: tuple[str, ...] = ()
    if not arguments.get("WINDOW", True):
        unread += Lists._fields
    if not arguments.get("ROUNDED", True):
        unread += STEPS
    return Roles(WRITTEN[kernel], unread)


@dataclass(frozen=True)
class Trial:
    """One call on one class of GPU.

    Attributes:
        name: Of the trial.
        gpu: Class of GPU.
        case: The call.
        trained: Whether gradients are computed, too.
        rounded: Whether queries and keys are rounded to 8 bits.
        spaced: Whether v is a view with NaN around each of its rows.
        far: Whether strides of the batch do not fit 32 bits.
        step: How many configurations the GPU steps down.
        processors: Among which text is split.
        queries: Which of the call's tokens ask.
        options: Of the interpreter.
    """

    name: str
    gpu: str
    case: Case
    trained: bool = False
    rounded: bool = False
    spaced: bool = False
    far: bool = False
    step: int = 0
    processors: int = 1
    queries: Queries = ALL
    options: Options = field(default_factory=Options)

    def tensors(self) -> list[Tensor]:
        """Return q of those that ask, k and v, ready for gradients."""
        q, k, v = self.case.tensors()
        q = self.queries.of(q, self.case.layout)
        if self.spaced:
            room = torch.full((*v.shape[:2], v.shape[2], 7, v.shape[3]), torch.nan, dtype=v.dtype)
            room[..., 3, :] = v
            v = room[..., 3, :]
        tensors = [q, k, v]
        if self.far:
            tensors = [x.as_strided(x.shape, (2**33, *x.stride()[1:])) for x in tensors]
        return [x.detach().requires_grad_(self.trained) for x in tensors]

    def call(self, weight: Tensor | None) -> Call:
        """Return the checked call."""
        layout, window = self.case.geometry
        pooling = None if weight is None else Pooling(self.case.factor, weight)
        scale = self.case.scale or self.case.head_dim**-0.5
        return Call(layout, window, pooling, scale, queries=self.queries)


@dataclass(frozen=True)
class Outcome:
    """How a trial went.

    Attributes:
        errors: Of the output, and of the gradients that follow from it as it was rounded: largest
            error over largest number, in units of the dtype's eps.
        of_exact_output: The same, of the gradients that follow from the exact output.
        lse_error: Absolute error of the log-sum-exp.
        lse_allowed: What rounding explains.
        launched: What was executed.
    """

    errors: dict[str, float]
    of_exact_output: dict[str, float]
    lse_error: float
    lse_allowed: float
    launched: list[Launched]


def run(trial: Trial, machine: Machine) -> Outcome:
    """Execute a trial and compare it with the reference in float64 of the same inputs."""
    inputs = trial.tensors()
    pooling = trial.case.pooling()
    weight = pooling.weight.requires_grad_(trial.trained) if pooling else None
    with on(trial, machine):
        found = triton.attend(*inputs, trial.call(weight), trial.rounded)
        upstream = _upstream(found.out)
        wanted = [*inputs, weight] if weight is not None else inputs
        gradients = torch.autograd.grad(found.out, wanted, upstream) if trial.trained else ()
    exact_inputs = [x.detach().double().requires_grad_(trial.trained) for x in inputs]
    exact_weight = weight.detach().requires_grad_(trial.trained) if weight is not None else None
    call = trial.call(exact_weight)
    exact = _exactly(trial, exact_inputs, call)
    exact_wanted = [*exact_inputs, exact_weight] if exact_weight is not None else exact_inputs
    eps = torch.finfo(trial.case.dtype).eps

    def gradient_errors(gradient_of_lse: Tensor) -> dict[str, float]:
        given = upstream.double(), gradient_of_lse
        exactly = torch.autograd.grad(exact, exact_wanted, given, retain_graph=True)
        pairs = zip(GRADIENTS, gradients, exactly, strict=False)
        return {name: _error(one, other) / eps for name, one, other in pairs}

    errors, of_exact_output = {"out": _error(found.out, exact.out) / eps}, {}
    if trial.trained:
        # The backward pass knows the output as it was rounded: its scalar product with the upstream
        # gradient is off, which a gradient of the log-sum-exp expresses.
        off = (upstream.double() * (exact.out - found.out)).sum(-1).detach()
        errors |= gradient_errors(off)
        of_exact_output = gradient_errors(torch.zeros_like(off))
    lse_error = (found.lse - exact.lse).abs().max().item()
    lse_allowed = _lse_allowed(trial, exact_inputs, call)
    launched, machine.launched = machine.launched, []
    return Outcome(errors, of_exact_output, lse_error, lse_allowed, launched)


@contextlib.contextmanager
def on(trial: Trial, machine: Machine) -> Iterator[None]:
    """Let the backend take this process for the trial's GPU."""

    def configs_for(kernel: str, own: Tensor) -> tuple[configs.Config, ...]:
        table = configs.CONFIGS[trial.gpu][kernel, configs.width_of(own.shape[-1])]
        return tuple(table[min(trial.step, len(table) - 1) :])

    machine.arch, machine.options = int(trial.gpu[3:]), trial.options
    machine.shared_bytes = configs.GPUS[trial.gpu].shared_bytes
    with (
        patch.object(launch, "configs_for", configs_for),
        patch.object(launch, "_processors", lambda device: trial.processors),
        patch.object(launch, "_skipped", {}),
    ):
        yield


def _upstream(out: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(out.shape, generator=generator).to(out.dtype)


def _exactly(trial: Trial, inputs: list[Tensor], call: Call) -> Part:
    if not trial.rounded:
        return reference.attend(*inputs, call)
    # The same steps in the same float32 as the kernel's; all that follows is exact.
    q, k, v = inputs
    mean = k[:, :, call.layout.image_slice].float().mean(2, keepdim=True)
    exact = reference.attend(_rounded(q), _rounded(k.float() - mean), v, call)
    shift = call.scale * (q @ mean.double().transpose(-1, -2)).squeeze(-1)
    return exact._replace(lse=exact.lse + shift)


def _rounded(x: Tensor) -> Tensor:
    x = x.float()
    step = x.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 127
    numbers = x / step
    whole = (numbers + torch.where(numbers < 0, -0.5, 0.5)).trunc()
    return whole.double() * step.double()


def _error(found: Tensor, exact: Tensor) -> float:
    """Return the largest error over the largest number; infinite where something is NaN."""
    error = (found.double() - exact).abs().max() / exact.abs().max()
    return error.item() if found.isfinite().all() else float("inf")


def _lse_allowed(trial: Trial, inputs: list[Tensor], call: Call) -> float:
    """Return what roundings make of a log-sum-exp.

    A score is a sum of D products in steps of eight, each rounded or cut off at float32; three more
    roundings follow, and half a dozen in the sum of exponentials. Pooled keys are rounded to the
    dtype: half an eps of their size, at worst along the query.
    """
    q, k, v = (x.detach() for x in inputs)
    keys, _ = reference.with_pooled(k, v, call)
    largest = (q.norm(dim=-1).max() * keys.norm(dim=-1).max()).item() * call.scale
    roundings = trial.case.head_dim // 8 + 3
    allowed = 2 * HALF_OF_FLOAT32 * (roundings * largest + 6 + largest)
    if call.pooling is not None:
        pooled = keys[:, :, k.shape[2] :]
        size = (q.norm(dim=-1).max() * pooled.norm(dim=-1).max()).item() * call.scale
        allowed += size * torch.finfo(trial.case.dtype).eps / 2
    return allowed
