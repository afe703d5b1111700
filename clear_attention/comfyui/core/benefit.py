"""The report's first line: what CLEAR did for a run, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...plan.report import duration

if TYPE_CHECKING:
    from .report import ComputedPath

ESTIMATE_KEY = "clear_attention_estimate"
"""Where a plain function lies that takes a report and a MODEL, and returns the seconds that the run
would have taken with full attention, or None."""

WORTH_MEASURING = 10.0
"""Seconds of a run from which on measuring this machine for a second or two does not matter."""

LITTLE = 1.05  # times less work, below which nobody notices


@dataclass(frozen=True)
class Benefit:
    """What CLEAR did for a run.

    Attributes:
        computed: Pairs of all attention calls that were counted.
        possible: Pairs of full attention.
        dense_calls: Calls of the model that stayed full as a whole.
        seconds: From the first call of the model to the end, or None where nobody measured.
        in_full: Expected with full attention, or None without a base for it.
    """

    computed: int
    possible: int
    dense_calls: int = 0
    seconds: float | None = None
    in_full: float | None = None

    @classmethod
    def of(
        cls,
        calls: Mapping[ComputedPath, int],
        seconds: float | None = None,
        in_full: float | None = None,
    ) -> Benefit:
        """Add up the calls of the model; those of other networks have lines of their own."""
        own = {path: number for path, number in calls.items() if not path.whose}
        return cls(
            sum(path.computed * number for path, number in own.items()),
            sum(path.possible * number for path, number in own.items()),
            sum(number for path, number in own.items() if path.whole),
            seconds,
            in_full,
        )

    @property
    def times_less(self) -> float:
        """How many times less work the attention was."""
        return self.possible / self.computed if self.computed else 1.0

    def headline(self) -> str:
        """Return the sentence."""
        if self.times_less < LITTLE:
            return f"CLEAR off: attention stayed full{self._time()}"
        work = f"{self.times_less:.1f}x less attention work"
        if self.dense_calls:
            return f"CLEAR on in a part of the run: {self._faster()}{work} there{self._time()}"
        return f"CLEAR on: {self._faster()}{work}{self._time()}"

    def _faster(self) -> str:
        if self.seconds is None or self.in_full is None or not self._gains(self.in_full):
            return ""
        return f"{self.in_full / self.seconds:.1f}x faster, "

    def _time(self) -> str:
        if self.seconds is None:
            return ""
        if self.in_full is None or not self._gains(self.in_full):
            return f", {duration(self.seconds)}"
        return f", {duration(self.seconds)} instead of about {duration(self.in_full)}"

    def _gains(self, in_full: float) -> bool:
        return self.seconds is not None and in_full >= LITTLE * self.seconds
