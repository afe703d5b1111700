"""The best validation of a run, and for how long there was no better one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..log import Row


@dataclass
class Best:
    """The smallest held-out error so far.

    Attributes:
        name: Of the loss that counts.
        error: Its smallest value.
        step: When that was.
        worse: Validations since then.
    """

    name: str
    error: float = math.inf
    step: int = 0
    worse: int = 0

    def take(self, step: int, values: Mapping[str, float]) -> bool:
        """Take a validation, and return whether it is the best so far.

        Args:
            step: Updates done.
            values: Its losses by name; nothing where nothing was held out.
        """
        error = values.get(self.name)
        if error is None:
            return False
        if error < self.error:
            self.error, self.step, self.worse = error, step, 0
            return True
        self.worse += 1
        return False

    def recall(self, rows: Iterable[Row]) -> None:
        """Take the validations of a log, in its order."""
        for step, kind, name, value in rows:
            if (kind, name) == ("held_out", self.name):
                self.take(step, {name: value})
