"""A machine on which parts of a model can be timed, and what is known of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

clock = time.perf_counter
"""In seconds. The benchmark can put the processor's own time here, for machines in use."""

# Seconds that one run of a part may last: beyond it the sample is long enough.
ENOUGH = {"cpu": 0.03}
ENOUGH_ELSEWHERE = 0.01
REPEATS = 3
FEWEST_TOKENS = 64
SMALLEST_STEP, LARGEST_STEP = 1.5, 16.0  # from one sample to a longer one


@dataclass(frozen=True, eq=False)
class TimedPart:
    """Something to time, and how many units of work it does."""

    run: Callable[[], Tensor]
    work: float


@dataclass(frozen=True)
class Found:
    """The result of timing a part.

    Attributes:
        tokens: Length of the sample.
        whole: Whether it was as long as the call, and could not grow on.
        seconds: For a unit of work.
    """

    tokens: int
    whole: bool
    seconds: float

    def serves(self, most: int) -> bool:
        """Tell whether it also says what a call of so many tokens costs."""
        alike = self.tokens < 2 * most and most < 2 * self.tokens
        return alike or (not self.whole and self.tokens <= most)


@dataclass(frozen=True, eq=False)
class Machine:
    """Where to measure, with what, and what was measured already.

    Attributes:
        device: The device.
        dtype: In which models compute.
        attend: The host's full attention, from q, k, v ``[1, H, L, D]``.
        positions: Makes the rotary positions of so many tokens, or None where there are none.
        rotate: Applies them to q and k ``[1, H, L, D]``.
        check: Is called between measurements, and raises to end them.
        known: Results by what was measured.
    """

    device: torch.device
    dtype: torch.dtype
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    positions: Callable[[int], Tensor] | None
    rotate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    check: Callable[[], None]
    known: dict[Hashable, list[Found]] = field(default_factory=dict)

    def random(self, *shape: int) -> Tensor:
        """Return small random numbers."""
        return torch.randn(shape, device=self.device, dtype=self.dtype) * 0.1

    def per_unit(
        self, key: Hashable, most: int, part: Callable[[int], TimedPart], power: int = 1
    ) -> float:
        """Return the seconds that a part needs for a unit of its work.

        Args:
            key: Names what is measured; what has been measured is not measured again.
            most: Tokens of the model's own calls; longer samples say nothing.
            part: Makes a sample of some length.
            power: With which power of the tokens its work grows.
        """
        found = self.known.setdefault((str(self.device), self.dtype, key), [])
        fitting = next((each for each in found if each.serves(most)), None)
        if fitting is None:
            fitting = self._measure(most, part, power)
            found.append(fitting)
        return fitting.seconds

    def _measure(self, most: int, part: Callable[[int], TimedPart], power: int) -> Found:
        enough = ENOUGH.get(self.device.type, ENOUGH_ELSEWHERE)
        tokens = min(most, FEWEST_TOKENS)
        while True:
            sample = part(tokens)
            self._time(sample.run)  # the first run of a size may choose its algorithm
            taken = self._time(sample.run)
            if taken >= enough or tokens >= most:
                break
            # On to what lasts long enough, in steps that do not overshoot by much.
            growth = (1.1 * enough / max(taken, 1e-6)) ** (1 / power)
            tokens = min(most, math.ceil(tokens * min(LARGEST_STEP, max(SMALLEST_STEP, growth))))
        taken = min(taken, *(self._time(sample.run) for _ in range(REPEATS)))
        return Found(tokens, taken < enough and tokens >= most, taken / sample.work)

    def _time(self, run: Callable[[], Tensor]) -> float:
        self.check()
        started = clock()
        run().flatten()[-1].item()  # waits for the device
        return clock() - started
