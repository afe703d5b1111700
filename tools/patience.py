"""Waiting that takes longer on a busy machine, and says what was waited for and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


class Patience:
    """A time limit that grows with the load of the machine while it runs.

    A process gets a core to itself where the machine is idle; of twenty that want two cores, each
    takes ten times as long.

    Args:
        what: What is waited for, such as "ComfyUI to answer".
        seconds: Limit on an idle machine.
        slowdown: How many times longer things take now.
        clock: Seconds that have passed.
    """

    def __init__(
        self,
        what: str,
        seconds: float,
        *,
        slowdown: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.seconds = what, seconds
        self._slowdown, self._clock = slowdown or slowdown_by_load, clock
        self._slowest, self._start = 1.0, clock()

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    @property
    def limit(self) -> float:
        """Seconds to wait in all: by the largest load until now, as what it held up stays late."""
        self._slowest = max(self._slowest, self._slowdown())
        return self.seconds * self._slowest

    @property
    def left(self) -> float:
        """Seconds that are left to wait, 0 or less at the end."""
        return self.limit - self.waited

    @property
    def over(self) -> bool:
        """Whether to give up."""
        return self.left <= 0

    def __str__(self) -> str:
        """Say in a sentence what was waited for, and for how long."""
        allowed = f"{self.seconds:.0f} s are allowed on an idle machine"
        if self._slowest > 1:
            allowed += f", {self._slowest:.1f} times as many under the load of this one"
        return f"Waited {self.waited:.0f} s for {self.what} ({allowed})."


def slowdown_by_load() -> float:
    """Return how many processes want each core, at least 1; Windows does not count them."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
