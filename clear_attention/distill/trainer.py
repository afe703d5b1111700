"""The training loop: draw a batch, update, log, validate, and keep states to go on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..atomic_files import make_folder
from ..distill import state as states
from .config import Optimiser, Training
from .data.batches import DrawsBatches
from .data.held_out import HeldOut
from .identity import as_json, deciding, require_same, samples_in
from .log import Log, read
from .state import State
from .tasks import Task
from .updates import average
from .updates.best import Best
from .updates.gradients import Gradients
from .updates.optimisers import make_optimiser, make_schedule, rate_of
from .updates.validation import validate
from .workers import sharding
from .workers.processes import Accelerator, any_process, make_accelerator

Observer = Callable[[int, Mapping[str, float]], None]
"""Called after each update with the number of updates so far and the losses."""


class Diverged(RuntimeError):
    """A loss or gradient became NaN or infinite."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


class Trainer:
    """Trains one task, from its last state if there is one."""

    def __init__(
        self,
        task: Task,
        batches: DrawsBatches,
        training: Training,
        optimiser: Optimiser,
        folder: Path,
        held_out: HeldOut | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            task: What is trained.
            batches: What it is trained on.
            training: How long.
            optimiser: How weights are updated.
            folder: For states and the log.
            held_out: What it is validated on.
            accelerator: One that exists already; else it is made for this machine.

        Raises:
            ValueError: The optimiser cannot share the work as it is asked to.
        """
        self.accelerator = accelerator or make_accelerator()
        self.training, self.folder = training, folder
        self.batches, self.held_out = batches, held_out
        self.task = task.to(self.accelerator.device)
        rows = [parameter.shape[0] for parameter in task.parameters() if parameter.ndim]
        sharding.require_even(self.accelerator, optimiser.name, rows)
        model = sharding.prepare(self.accelerator, self.task)
        self.gradients = Gradients(self.accelerator, self.task, model, training)
        self.parameters = {n: p for n, p in task.named_parameters() if p.requires_grad}
        self.optimiser = make_optimiser(list(self.parameters.values()), optimiser)
        self.schedule = make_schedule(self.optimiser, optimiser, training.steps)
        self.clip_norm = optimiser.clip_norm
        averaged = self.parameters if training.ema_decay else {}
        self.average = {name: p.detach().clone() for name, p in averaged.items()}
        self.step = 0
        self.best = Best(task.criterion)
        self.written: Callable[[bool], None] | None = None
        self.settings = deciding(training, optimiser) | task.made_with()
        make_folder(folder)

    def resume(self) -> int:
        """Go on from the last state of the folder, if there is one, and return its step.

        Raises:
            ValueError: It is damaged, or of a run with another model or optimiser.
        """
        found = states.states(self.folder)
        if not found:
            return 0
        state = states.load(found[-1])
        broken = states.broken_in(state)
        if broken:
            raise ValueError(
                f"{found[-1]} cannot be gone on from, {broken} is not finite: delete it to go on "
                "from the one before."
            )
        now = self.made_with(samples_in(state.made_with))
        require_same(found[-1], state.made_with, now)
        if state.step > self.training.steps:
            raise ValueError(
                f"{found[-1]} is of step {state.step}: training.steps must be at least that to go "
                f"on, got {self.training.steps}."
            )
        states.copy_into(self.parameters, state.weights, str(found[-1]))
        if self.average:
            states.copy_into(self.average, state.average, str(found[-1]))
        states.into_optimiser(self.optimiser, self.parameters, state, str(found[-1]))
        self.step = state.step
        self.schedule.last_epoch = state.step
        return self.step

    def made_with(self, samples: int | None = None) -> dict[str, Any]:
        """Return what the result depends on, as a state gives it back.

        Args:
            samples: How many samples of the data count, the first ones; None for all.
        """
        data = self.batches.identity(samples)
        return as_json({**self.settings, "data": data})

    def run(
        self,
        observe: Observer | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        validated: Callable[[int], None] | None = None,
        written: Callable[[bool], None] | None = None,
    ) -> bool:
        """Train to the end, or until asked to stop; the state is kept in either case.

        The end is also where validations have not become better for as long as `patience` says.

        Args:
            observe: Called after each update.
            should_stop: Asked before each update.
            validated: Called at each validation on the main process, inside `result`: for pictures.
            written: Called on the main process, inside `result`, with each state that is kept, and
                with True at each best validation: for files of what is trained.

        Returns:
            Whether the end was reached.

        Raises:
            Diverged: A loss or a weight became NaN; the last good state is in the folder.
            NotWritten: The disk is full; the states before are kept.
        """
        self.written = written
        log = Log(self.folder, self.step) if self.accelerator.is_main_process else None
        self.best.recall(read(self.folder) if log else ())
        while self.step < self.training.steps and not self.out_of_patience():
            if any_process(self.accelerator, should_stop()):
                self.keep()
                return False
            values = self.update()
            if log and self.due(self.training.log_every):
                log.add(self.step, values, "train")
            if self.due(self.training.save_every):
                self.keep()
            if self.due(self.training.validate_every):
                self.report_validation(log, validated)
            if observe:
                observe(self.step, values)
        if not self.due(self.training.save_every):  # patience may end between two states
            self.keep()
        return True

    def due(self, every: int) -> bool:
        """Return whether it is time for what is done at the end, and every so many steps.

        Args:
            every: Number of steps; 0 for the end only.
        """
        return self.step == self.training.steps or (every > 0 and self.step % every == 0)

    def report_validation(self, log: Log | None, validated: Callable[[int], None] | None) -> None:
        """Validate; on the main process, add the losses to the log and call who wants to know."""
        values = self.validate()
        if log and values:
            log.add(self.step, values, "held_out")
        is_best = self.best.take(self.step, values)
        if self.written and is_best:
            self.on_main(partial(self.written, True))
        if validated:
            self.on_main(lambda: validated(self.step))

    def on_main(self, call: Callable[[], None]) -> None:
        """Call something on the main process with the result in place; all must enter."""
        with self.result():
            if self.accelerator.is_main_process:
                call()

    def out_of_patience(self) -> bool:
        """Return whether validations have not become better for too long, the same everywhere."""
        patience = self.training.patience
        return patience > 0 and any_process(self.accelerator, self.best.worse >= patience)

    def update(self) -> dict[str, float]:
        """Do one update and return its losses, gradient norm and step size.

        Raises:
            Diverged: A loss or the gradient is not finite; the weights are untouched.
        """
        self.task.train()
        self.optimiser.zero_grad(set_to_none=True)
        losses = self.gradients.add(self.batches.draw(self.step))
        norm = self.accelerator.clip_grad_norm_(
            self.parameters.values(), self.clip_norm or math.inf
        )
        values = {name: self.gradients.mean(loss) for name, loss in losses.items()}
        values["gradient"] = float(sharding.whole(norm)) if norm is not None else 0.0
        self.require_finite(values)
        self.optimiser.step()
        values["rate"] = rate_of(self.optimiser)
        self.schedule.step()
        self.step += 1
        average.follow(self.average, self.parameters, self.step, self.training.ema_decay)
        return values

    def validate(self) -> dict[str, float]:
        """Return the mean losses on held-out data, of the averaged weights where there are some."""
        if self.held_out is None:
            return {}
        with self.averaged():
            return validate(self.held_out, self.gradients)

    def averaged(self) -> AbstractContextManager[None]:
        """Put the averaged weights in place for the length of a ``with``; none, no change."""
        return average.in_place(self.average, self.parameters)

    @contextmanager
    def result(self) -> Generator[None]:
        """Put the averaged weights in place and in one piece, for one process to use alone.

        All processes must enter.
        """
        with self.averaged(), sharding.in_one_piece(self.task):
            yield

    def require_finite(self, values: Mapping[str, float]) -> None:
        """Raise `Diverged` with what to do, unless all values are finite."""
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise self.diverged(f"{', '.join(broken)} is not finite")

    def diverged(self, what: str) -> Diverged:
        """Return the error of a run that cannot go on, with where it can."""
        kept = states.states(self.folder)
        return Diverged(
            f"Training diverged at step {self.step}: {what}. The last good state is "
            f"{kept[-1].name if kept else 'the start'}; take a lower optimiser.learning_rate or "
            "optimiser.clip_norm in a folder of its own and start again."
        )

    def keep(self) -> None:
        """Write the state, and let whoever writes files of what is trained do so."""
        self.save()
        if self.written:
            self.on_main(partial(self.written, False))

    def save(self) -> None:
        """Write the state from which `resume` goes on.

        Raises:
            Diverged: It is not finite: nothing is written, and the state before it is kept.
            NotWritten: The disk is full, or refuses for another reason; the states are kept.
        """
        memory, numbers = states.of_optimiser(self.optimiser, self.parameters)
        state = State(self.step, self.parameters, self.average, memory, numbers, self.made_with())
        broken = states.broken_in(state)
        if any_process(self.accelerator, broken is not None):
            raise self.diverged(f"{broken or 'what another process trains'} is not finite")
        # All processes gather what is sharded, piece by piece.
        state = replace(
            state,
            weights=self.gathered(self.parameters),
            average=self.gathered(self.average),
            memory={name: self.gathered(entries) for name, entries in memory.items()},
        )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            states.save(self.folder, state, self.training.keep_states)

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors in one piece on the main process, and what is at hand on others."""
        return {
            name: sharding.whole(tensor.detach(), keep=self.accelerator.is_main_process)
            for name, tensor in tensors.items()
        }
