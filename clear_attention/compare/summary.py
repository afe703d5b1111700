"""Many measurements as means with standard errors: of a model, of its share, of two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .measurement import ANOTHER_SEED, Distance, Measurement
from .pictures import psnr

Measure = Callable[[Distance], float]


@dataclass(frozen=True)
class Mean:
    """A mean.

    Attributes:
        value: The mean.
        error: Its standard error, NaN of fewer than two values.
        count: Of the values.
    """

    value: float
    error: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Average some values; of none it is NaN."""
        count = len(values)
        if not count:
            return cls(math.nan, math.nan, 0)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(mean, math.nan, 1)
        variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        return cls(mean, math.sqrt(variance / count), count)

    def in_decibels(self) -> Mean:
        """Return a mean squared difference as a signal-to-noise ratio: to first order the error."""
        if not self.value > 0:
            return Mean(psnr(self.value) if self.value == 0 else math.nan, math.nan, self.count)
        return Mean(psnr(self.value), 10 / math.log(10) * self.error / self.value, self.count)


@dataclass(frozen=True)
class Comparison:
    """What was measured of several models on the same pictures.

    Attributes:
        measurements: Of all models; the yardstick's are named `ANOTHER_SEED`.
        teacher: Name of the model with which all others are compared.
    """

    measurements: tuple[Measurement, ...]
    teacher: str

    @property
    def names(self) -> list[str]:
        """The models that are compared with the teacher, in the order of appearance."""
        others = (one.name for one in self.measurements)
        return [name for name in dict.fromkeys(others) if name not in (self.teacher, ANOTHER_SEED)]

    @property
    def embeddings(self) -> list[str]:
        """Names of the vision models that looked at the pictures."""
        found = (one.distance.embeddings for one in self.measurements if one.distance)
        return list(dict.fromkeys(name for each in found for name in each))

    @property
    def pictures(self) -> list[str]:
        """All pictures."""
        return list(dict.fromkeys(one.picture for one in self.measurements))

    def faults(self) -> list[Measurement]:
        """Return what could not be compared."""
        return [one for one in self.measurements if one.fault]

    def distances(self, name: str) -> dict[str, Distance]:
        """Return what could be compared of a model, by picture."""
        return {one.picture: one.distance for one in self._of(name) if one.distance is not None}

    def mean(self, name: str, measure: Measure) -> Mean:
        """Return the mean of a measure over a model's pictures without a fault."""
        return Mean.of([measure(distance) for distance in self.distances(name).values()])

    def share(self, name: str, measure: Measure) -> float:
        """Return a mean as a share of the mean distance to another seed, on the same pictures."""
        own, other = self.distances(name), self.distances(ANOTHER_SEED)
        common = [picture for picture in own if picture in other]
        if not common:
            return math.nan
        whole = math.fsum(measure(other[picture]) for picture in common)
        return math.fsum(measure(own[picture]) for picture in common) / whole if whole else math.nan

    def difference(self, name: str, than: str, measure: Measure) -> Mean:
        """Return how much larger a measure is than another model's, picture by picture.

        What makes a picture hard for both cancels out, so that its standard error is smaller than
        those of the two means.
        """
        own, others = self.distances(name), self.distances(than)
        common = [picture for picture in own if picture in others]
        return Mean.of([measure(own[each]) - measure(others[each]) for each in common])

    def seconds(self, name: str) -> Mean:
        """Return the mean seconds of a model's runs."""
        return Mean.of([one.seconds for one in self._of(name)])

    def pairs(self, name: str) -> Mean:
        """Return the mean share of the pairs of attention that a model computed."""
        return Mean.of([one.computed for one in self._of(name)])

    def _of(self, name: str) -> list[Measurement]:
        return [one for one in self.measurements if one.name == name]
