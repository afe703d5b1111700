"""Replay a recorded run in one process: each step from the recorded weights and gradients.

Adam divides a gradient by its own size: where a gradient is rounding only, its update is as large
as any other, and the weights of two runs part. So the two halves of a step are compared apart:
losses and gradients at the recorded weights, and the update that recorded gradients give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
from attention_cases import assert_as_exact_as
from torch import Tensor

from clear_attention.distill.trainer import Trainer
from clear_attention.distill.workers.sharding import whole

EPS = torch.finfo(torch.float32).eps
NAME = "{}/{}/{}".format  # step, kind, parameter or loss

Record = dict[str, Tensor]


def record(trainer: Trainer, **run: Any) -> Record:
    """Run a trainer, and return losses, gradients, weights and averages of each of its steps.

    All processes must record: they gather together what is sharded.
    """
    kept = weights(trainer)

    def observe(step: int, values: Mapping[str, float]) -> None:
        kept.update({NAME(step, "loss", name): torch.tensor(v) for name, v in values.items()})
        for name, parameter in trainer.parameters.items():
            assert parameter.grad is not None, name
            kept[NAME(step, "gradient", name)] = whole(parameter.grad).clone()
        kept.update(weights(trainer))

    trainer.run(observe, **run)
    return kept


def weights(trainer: Trainer) -> Record:
    """Return copies of weights and averages by their names in a record."""
    return {
        NAME(trainer.step, kind, name): whole(tensor.detach()).clone()
        for kind, tensors in (("weight", trainer.parameters), ("average", trainer.average))
        for name, tensor in tensors.items()
    }


def replay(recorded: Record, trainer: Trainer, exact: Trainer) -> None:
    """Compare each step that a trainer has still to do with the record, and go on as recorded.

    Args:
        recorded: What several processes did.
        trainer: One process, at the step where it begins to compare.
        exact: Another one, whose network and student become float64.
    """
    mine: Record = {}

    def take_recorded_gradients(*_: object) -> None:
        for name, parameter in trainer.parameters.items():
            assert parameter.grad is not None, name
            key = NAME(trainer.step + 1, "gradient", name)
            mine[key] = parameter.grad.clone()
            parameter.grad.copy_(recorded[key])

    trainer.optimiser.register_step_pre_hook(take_recorded_gradients)
    while trainer.step < trainer.training.steps:
        copy_weights(recorded, trainer.step, trainer)
        truth = exact_step(recorded, trainer.step, exact)
        values = trainer.update()
        step = trainer.step
        mine.update({NAME(step, "loss", name): torch.tensor(v) for name, v in values.items()})
        compare_gradients(step, recorded, mine, truth)
        compare_losses(step, recorded, mine, truth)
        compare_update(step, recorded, weights(trainer), float(values["rate"]))


def copy_weights(recorded: Record, step: int, trainer: Trainer) -> None:
    """Give a trainer the weights that were recorded after a step."""
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(recorded[NAME(step, "weight", name)])


def exact_step(recorded: Record, step: int, trainer: Trainer) -> Record:
    """Compute the losses and gradients of the step behind recorded weights in float64."""
    trainer.average.clear()  # of no interest, and float32
    trainer.task.double()
    trainer.task.denoiser.network.double()
    trainer.step = step
    copy_weights(recorded, step, trainer)
    with patch.object(Tensor, "float", Tensor.double):
        values = trainer.update()
    exact = {
        NAME(step + 1, "gradient", name): parameter.grad
        for name, parameter in trainer.parameters.items()
    }
    return exact | {
        NAME(step + 1, "loss", name): torch.tensor(value, dtype=torch.float64)
        for name, value in values.items()
    }


def compare_gradients(step: int, several: Record, one: Record, exact: Record) -> None:
    """Several processes are as close to float64 as one is."""
    names = [name for name in exact if name.startswith(NAME(step, "gradient", ""))]
    largest = max(float(exact[name].abs().max()) for name in names)
    assert largest > 1e-4
    for name in names:
        # Terms as large as other gradients cancel out in that of a bias of the keys.
        assert_as_exact_as(several[name], one[name], exact[name], 8 * EPS * largest)


def compare_losses(step: int, several: Record, one: Record, exact: Record) -> None:
    """Several processes are as close to float64 as one is."""
    for name in (name for name in exact if name.startswith(NAME(step, "loss", ""))):
        assert_as_exact_as(several[name], one[name], exact[name], loss_noise(float(exact[name])))


def loss_noise(loss: float) -> float:
    """Return what last bits do to a mean of squared differences of outputs of about 1."""
    return 8 * EPS * loss**0.5


def compare_update(step: int, several: Record, one: Record, rate: float) -> None:
    """From the same gradients follow the same weights, but for the last bits of each operation."""
    for name, tensor in one.items():
        size = rate + float(tensor.abs().max())
        torch.testing.assert_close(several[name], tensor, rtol=0, atol=16 * EPS * size, msg=name)
