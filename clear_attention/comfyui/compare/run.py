"""The run of a comparison: who paints what in which order, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...compare.measurement import ANOTHER_SEED, Distance, Measurement
from ...compare.pictures import fault_of
from ...compare.velocity import LEVELS, power, squared_difference
from .contestants import Contestant
from .looks import Eyes, Look, distance_of
from .painting import Painted, Task, paint
from .predictions import velocities

OnProgress = Callable[[int, Any], None]
"""Takes the work that is done, in calls of the model, and a denoised latent or None."""


@dataclass(frozen=True, eq=False)
class Match:
    """Who is compared with whom, on what.

    Attributes:
        teacher: With which all others are compared.
        others: The others.
        task: What they paint.
        seeds: Of the pictures.
        another: A seed outside of them, of the yardstick.
        eyes: What looks at the pictures.
        prompt: What they show, where that is known.
        label: What comes in front of a picture's seed in the measurements.
    """

    teacher: Contestant
    others: Sequence[Contestant]
    task: Task
    seeds: Sequence[int]
    another: int
    eyes: Eyes
    prompt: str = ""
    label: str = ""

    @property
    def work(self) -> int:
        """Steps and predictions of all models, with a unit for each look."""
        painted = (len(self.others) + 1) * len(self.seeds) + 1
        return painted * (self.task.steps + len(LEVELS) + 1) + len(self.others)


@dataclass(frozen=True, eq=False)
class Finished:
    """A seed's pictures by one model.

    Attributes:
        painted: The latents.
        errors: Of its velocities on the teacher's pictures, ``[levels, B]``; the teacher's own have
            their power there.
    """

    painted: Painted
    errors: Tensor


@dataclass(frozen=True, eq=False)
class Row:
    """What is shown of one picture.

    Attributes:
        seed: Of it.
        place: In the batch.
        pictures: ``[H, W, 3]`` by the measurements' names; None where a latent has no colours.
        measurements: By their names.
    """

    seed: int
    place: int
    pictures: dict[str, Tensor | None]
    measurements: dict[str, Measurement]


@dataclass
class Run:
    """A comparison that runs.

    Attributes:
        match: What is compared.
        on_progress: Follows the work.
        tried: Whether all models have been called before.
        remarks: Why windows stayed full, by the model's name.
    """

    match: Match
    on_progress: OnProgress
    tried: bool = False
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _done: int = 0

    def rows(self) -> Iterator[Row]:
        """Paint everything, then yield a row per picture.

        One model paints after the other, so that its weights are patched once. First the teacher's
        yardstick and everybody's first predictions, which are not timed: kernels are compiled.
        """
        match = self.match
        for each in () if self.tried else match.others:
            self._try(each)
        another, elsewhere = self._teach(match.another)
        taught = {seed: self._teach(seed) for seed in match.seeds}
        others = {
            each.name: {seed: self._follow(each, seed, *taught[seed]) for seed in match.seeds}
            for each in match.others
        }
        yardstick = self._look(another)
        for seed, (painted, true) in taught.items():
            full = Finished(painted, torch.stack([power(level) for level in true]))
            found = {ANOTHER_SEED: Finished(another, _errors(elsewhere, true))}
            found |= {name: finished[seed] for name, finished in others.items()}
            yield from self._compared(seed, full, found, yardstick)

    def _try(self, each: Contestant) -> None:
        """Call a model once, so that one that fails does so before the others have painted."""
        task = self.match.task
        velocities(each.model, task, task.noise(0), 0, self._move, LEVELS[:1])

    def _teach(self, seed: int) -> tuple[Painted, list[Tensor]]:
        """Let the teacher paint a seed, and predict on its picture."""
        model = self.match.teacher.model
        painted = paint(model, self.match.task, seed, self._move)
        return painted, self._predict(model, painted, seed)

    def _follow(self, each: Contestant, seed: int, full: Painted, true: list[Tensor]) -> Finished:
        """Let another model predict on the teacher's picture of a seed, and paint it."""
        errors = _errors(self._predict(each.model, full, seed), true)
        painted = paint(each.model, self.match.task, seed, self._move)
        if each.is_local:
            self.remarks[each.name] = painted.remarks
        return Finished(painted, errors)

    def _predict(self, model: ModelPatcher, painted: Painted, seed: int) -> list[Tensor]:
        picture = painted.latent.nan_to_num()
        return velocities(model, self.match.task, picture, seed, self._move)

    def _look(self, painted: Painted) -> Look:
        self._move(None)
        return self.match.eyes.look(painted.latent)

    def _compared(
        self, seed: int, full: Finished, others: dict[str, Finished], yardstick: Look
    ) -> Generator[Row]:
        look = self._look(full.painted)
        looks = {
            name: yardstick if name == ANOTHER_SEED else self._look(each.painted)
            for name, each in others.items()
        }
        teacher = self.match.teacher.name
        for place in range(len(look.values)):
            key = self._key(seed, place, len(look.values))
            base = _fault(look, place)
            found = {teacher: self._measurement(teacher, key, full, None, base)}
            for name, each in others.items():
                fault = base and f"{teacher} gave {base}"
                fault = fault or _fault(looks[name], place)
                distance = None
                if not fault:
                    errors = each.errors[:, place], full.errors[:, place]
                    distance = distance_of(_one(looks[name], place), _one(look, place), *errors)
                found[name] = self._measurement(name, key, each, distance, fault)
            pictures = {teacher: self._thumbnail(look, place)}
            pictures |= {name: self._thumbnail(each, place) for name, each in looks.items()}
            yield Row(seed, place, pictures, found)

    def _measurement(
        self, name: str, key: str, finished: Finished, distance: Distance | None, fault: str
    ) -> Measurement:
        painted = finished.painted
        count = painted.latent.shape[0]
        return Measurement(
            name,
            key,
            distance,
            painted.seconds / count,
            painted.computed,
            fault,
            self.match.prompt,
        )

    def _key(self, seed: int, place: int, batch: int) -> str:
        return f"{self.match.label}{seed}" + (f" / {place + 1}" if batch > 1 else "")

    def _thumbnail(self, look: Look, place: int) -> Tensor | None:
        shown = self.match.eyes.thumbnail(_one(look, place))
        return None if shown is None else shown[0].nan_to_num()

    def _move(self, denoised: Tensor | None) -> None:
        self._done += 1
        self.on_progress(self._done, denoised)


def _errors(found: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
    """Return the errors of velocities at each level, ``[levels, B]``."""
    return torch.stack([squared_difference(*each) for each in zip(found, true, strict=True)])


def _one(look: Look, place: int) -> Look:
    at = slice(place, place + 1)
    embeddings = {name: values[at] for name, values in look.embeddings.items()}
    return Look(look.values[at], embeddings, look.is_latent)


def _fault(look: Look, place: int) -> str:
    return fault_of(look.values[place], is_latent=look.is_latent)
