"""One picture by one model: how far it is from full attention's, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .velocity import LEVELS

ANOTHER_SEED = "another seed"
"""Name of full attention's picture of a seed outside of the others: the yardstick."""

DISTANCE = "distance "
"""What the names of the columns for embeddings begin with."""


@dataclass(frozen=True)
class Distance:
    """How far a picture is from another one.

    Attributes:
        velocity: Mean squared difference of the velocities at each of `LEVELS`.
        power: Mean square of the other one's velocity at each noise level.
        squared: Mean squared difference of the pictures, in peaks squared.
        ssim: Their structural similarity.
        embeddings: Cosine distance of their embeddings, by the name of the vision model.
    """

    velocity: tuple[float, ...]
    power: tuple[float, ...]
    squared: float
    ssim: float
    embeddings: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_velocity(self) -> float:
        """The velocity error, as a mean over the noise levels."""
        return sum(self.velocity) / len(self.velocity)

    @property
    def mean_power(self) -> float:
        """The power of the other one's velocity, as a mean over the noise levels."""
        return sum(self.power) / len(self.power)


@dataclass(frozen=True)
class Measurement:
    """A picture by a model.

    Attributes:
        name: Of the model, or `ANOTHER_SEED`.
        picture: Which picture it is: what models paint under one name is compared.
        distance: To full attention's picture, None for that one itself and where there is a fault.
        seconds: Of the sampling run.
        computed: Pairs of attention of one head that were computed in it, as a share of all.
        fault: What is wrong with it, empty if nothing is.
        prompt: What it shows, where that is known.
    """

    name: str
    picture: str
    distance: Distance | None
    seconds: float
    computed: float
    fault: str = ""
    prompt: str = ""

    def to_row(self) -> dict[str, str]:
        """Return it as a row of a table of texts; `of_row` reads it."""
        row = {
            "picture": self.picture,
            "model": self.name,
            "seconds": repr(self.seconds),
            "pairs": repr(self.computed),
            "fault": self.fault,
        }
        if self.distance is not None:
            row |= _row_of(self.distance)
        return row | {"prompt": self.prompt}

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Measurement:
        """Read what `to_row` wrote."""
        return cls(
            row["model"],
            row["picture"],
            _distance_of(row),
            float(row["seconds"]),
            float(row["pairs"]),
            row["fault"],
            row["prompt"],
        )


def columns(embeddings: Sequence[str]) -> list[str]:
    """Return the names of all columns that `Measurement.to_row` may have, in order.

    Args:
        embeddings: Names of the vision models.
    """
    zeros = (0.0,) * len(LEVELS)
    distance = Distance(zeros, zeros, 0.0, 0.0, dict.fromkeys(embeddings, 0.0))
    return list(Measurement("", "", distance, 0.0, 0.0).to_row())


def _row_of(distance: Distance) -> dict[str, str]:
    numbers: dict[str, float] = {}
    for what, values in (("velocity", distance.velocity), ("power", distance.power)):
        numbers |= {f"{what} {level}": each for level, each in zip(LEVELS, values, strict=True)}
    numbers |= {"squared": distance.squared, "ssim": distance.ssim}
    numbers |= {f"{DISTANCE}{name}": value for name, value in distance.embeddings.items()}
    return {name: repr(value) for name, value in numbers.items()}


def _distance_of(row: Mapping[str, str]) -> Distance | None:
    if not row["squared"]:
        return None
    embeddings = {
        name.removeprefix(DISTANCE): float(value)
        for name, value in row.items()
        if name.startswith(DISTANCE) and value
    }
    velocity = tuple(float(row[f"velocity {level}"]) for level in LEVELS)
    power = tuple(float(row[f"power {level}"]) for level in LEVELS)
    return Distance(velocity, power, float(row["squared"]), float(row["ssim"]), embeddings)
